#include "eval/stack_curve.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace mneme {
namespace {

BlockStack& stack_of(Engine& engine) {
  BlockStack* const stack = engine.model().weights.stack.get();
  if (stack == nullptr) {
    fail(ErrorCode::kInvalidArgument, "[eval stack] expected a model of BITSTACK matrices, found none in {}",
         engine.file().path());
  }
  return *stack;
}

/// Bytes of the weights beside the stack.
uint64_t other_bytes(const Engine& engine) {
  return engine.plan().bytes(Tag::kWeights) - engine.plan().stack_bytes;
}

StackPoint measure(Engine& engine, std::span<const TokenId> tokens, const PerplexityOptions& options, size_t n) {
  BlockStack& stack = stack_of(engine);
  stack.set_target(n);
  StackPoint point;
  point.blocks = stack.status().loaded;
  point.bytes = other_bytes(engine) + stack.bytes(point.blocks);
  point.bits_per_weight = stack.bits_per_weight(point.blocks);
  point.quality = perplexity(engine, tokens, options, [](uint64_t, uint64_t) {});
  return point;
}

std::vector<double> ranks(std::span<const double> values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> out(values.size());
  for (size_t i = 0; i < order.size();) {
    size_t end = i + 1;
    while (end < order.size() && values[order[end]] == values[order[i]]) ++end;
    for (size_t j = i; j < end; ++j) out[order[j]] = static_cast<double>(i + end - 1) / 2;
    i = end;
  }
  return out;
}

}  // namespace

std::vector<StackPoint> measure_stack_curve(Engine& engine, std::span<const TokenId> tokens,
                                            const PerplexityOptions& options, size_t n_sizes,
                                            const std::function<void(size_t, size_t)>& progress) {
  BlockStack& stack = stack_of(engine);
  const size_t before = stack.status().target, least = stack.least_blocks(), all = stack.n_blocks();
  n_sizes = std::clamp<size_t>(n_sizes, 2, all - least + 1);
  std::vector<StackPoint> points;
  for (size_t i = 0; i < n_sizes; ++i) {
    points.push_back(measure(engine, tokens, options, least + (all - least) * i / (n_sizes - 1)));
    progress(i + 1, n_sizes);
  }
  stack.set_target(before);
  return points;
}

StackPoint measure_stack_at(Engine& engine, std::span<const TokenId> tokens, const PerplexityOptions& options,
                            uint64_t bytes) {
  BlockStack& stack = stack_of(engine);
  const uint64_t others = other_bytes(engine);
  const size_t before = stack.status().target, n = stack.fitting(bytes > others ? bytes - others : 0);
  if (n < stack.least_blocks()) {
    fail(ErrorCode::kOutOfBudget, "[eval stack] expected at least {} bytes for this model, found {}",
         others + stack.bytes(stack.least_blocks()), bytes);
  }
  const StackPoint point = measure(engine, tokens, options, n);
  stack.set_target(before);
  return point;
}

double rank_correlation(std::span<const double> a, std::span<const double> b) {
  const std::vector<double> x = ranks(a), y = ranks(b);
  const double middle = static_cast<double>(x.size() - 1) / 2;
  double xy = 0, xx = 0, yy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - middle) * (y[i] - middle);
    xx += (x[i] - middle) * (x[i] - middle);
    yy += (y[i] - middle) * (y[i] - middle);
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : 0;
}

}  // namespace mneme
