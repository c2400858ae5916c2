#include "engine/sampling/dense_logits.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"

namespace mneme::dense {
namespace {

constexpr size_t kBlock = 128;
constexpr size_t kLanes = 16;

/// Largest entry of up to kBlock logits; NaN is passed over.
float block_maximum(const float* logits, size_t n) {
  std::array<float, kLanes> best;
  best.fill(kBanned);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const float x = logits[i + lane];
      best[lane] = x > best[lane] ? x : best[lane];
    }
  }
  for (; i < n; ++i) best[0] = logits[i] > best[0] ? logits[i] : best[0];
  return *std::max_element(best.begin(), best.end());
}

bool has_nan(std::span<const float> logits) {
  std::array<uint32_t, kLanes> found{};
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      found[lane] |= std::isunordered(logits[i + lane], logits[i + lane]) ? 1u : 0u;
    }
  }
  for (; i < logits.size(); ++i) found[0] |= std::isnan(logits[i]) ? 1u : 0u;
  return std::any_of(found.begin(), found.end(), [](uint32_t f) { return f != 0; });
}

/// Sum of exp(logit - max) over up to kBlock logits.
double block_sum_exp(const float* logits, size_t n, float max) {
  std::array<float, kBlock> terms;
  for (size_t i = 0; i < n; ++i) terms[i] = exp_nonpositive(logits[i] - max);
  std::array<float, kLanes> sums{};
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) sums[lane] += terms[i + lane];
  }
  for (; i < n; ++i) sums[0] += terms[i];
  double total = 0;
  for (const float sum : sums) total += sum;
  return total;
}

size_t block_size(std::span<const float> logits, size_t begin) { return std::min(kBlock, logits.size() - begin); }

}  // namespace

Maximum maximum(std::span<const float> logits) {
  if (has_nan(logits)) {
    const auto bad = std::find_if(logits.begin(), logits.end(), [](float x) { return std::isnan(x); });
    fail(ErrorCode::kInvalidArgument, "[sample] expected logits that are numbers, found NaN at token {} of {}",
         bad - logits.begin(), logits.size());
  }
  Maximum best{kBanned, -1};
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const float block = block_maximum(logits.data() + begin, block_size(logits, begin));
    if (block > best.logit) best = {block, static_cast<TokenId>(begin)};
  }
  if (best.id < 0) {
    fail(ErrorCode::kInvalidArgument, "[sample] no token can be chosen: all {} logits are -inf (banned)", logits.size());
  }
  while (logits[static_cast<size_t>(best.id)] != best.logit) ++best.id;
  if (std::isinf(best.logit)) {
    fail(ErrorCode::kInvalidArgument, "[sample] expected finite logits, found +inf at token {} of {}", best.id,
         logits.size());
  }
  return best;
}

double sum_exp(std::span<const float> logits, float max) {
  double total = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    total += block_sum_exp(logits.data() + begin, block_size(logits, begin), max);
  }
  return total;
}

Draw draw(std::span<const float> logits, float max, double uniform) {
  const double total = sum_exp(logits, max);
  const double target = uniform * total;
  double sum = 0;
  Draw last{-1, 0};
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const size_t n = block_size(logits, begin);
    const double block = block_sum_exp(logits.data() + begin, n, max);
    if (sum + block <= target) {
      sum += block;
      continue;
    }
    // The sum of a block and the running sum of its terms may round differently; then the draw goes on behind it, or ends
    // with the last token it saw.
    for (size_t i = begin; i < begin + n; ++i) {
      const float term = exp_nonpositive(logits[i] - max);
      if (term == 0) continue;
      sum += term;
      last = {static_cast<TokenId>(i), static_cast<float>(term / total)};
      if (sum > target) return last;
    }
  }
  return last;
}

Moments moments(std::span<const float> logits) {
  double sum = 0;
  size_t n = 0;
  for (float x : logits) {
    sum += x == kBanned ? 0.0f : x;
    n += x != kBanned;
  }
  const double mean = sum / static_cast<double>(n);
  double squares = 0;
  for (float x : logits) {
    const double d = x == kBanned ? 0.0 : x - mean;
    squares += d * d;
  }
  return {mean, std::sqrt(squares / static_cast<double>(n))};
}

// The n-th largest block maximum is a bound that at least n tokens reach, so only blocks whose maximum reaches it can hold
// one of the n best.
void top(std::span<const float> logits, size_t n, std::vector<Candidate>& out) {
  out.clear();
  if (n == 0) return;
  std::vector<float> maxima;
  maxima.reserve(logits.size() / kBlock + 1);
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    maxima.push_back(block_maximum(logits.data() + begin, block_size(logits, begin)));
  }
  float bound = std::numeric_limits<float>::lowest();
  if (n < maxima.size()) {
    std::vector<float> order = maxima;
    std::nth_element(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(n - 1), order.end(), std::greater<>());
    bound = std::max(bound, order[n - 1]);
  }
  for (size_t block = 0; block < maxima.size(); ++block) {
    if (maxima[block] < bound) continue;
    const size_t begin = block * kBlock, end = begin + block_size(logits, begin);
    for (size_t i = begin; i < end; ++i) {
      if (logits[i] >= bound) out.push_back({static_cast<TokenId>(i), logits[i], 0});
    }
  }
  if (out.size() > n) {
    std::nth_element(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(n), out.end(), ranks_before);
    out.resize(n);
  }
  std::sort(out.begin(), out.end(), ranks_before);
}

void at_least(std::span<const float> logits, float threshold, std::vector<Candidate>& out) {
  out.clear();
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const size_t end = begin + block_size(logits, begin);
    if (block_maximum(logits.data() + begin, end - begin) < threshold) continue;
    for (size_t i = begin; i < end; ++i) {
      if (logits[i] >= threshold && logits[i] != kBanned) out.push_back({static_cast<TokenId>(i), logits[i], 0});
    }
  }
}

}  // namespace mneme::dense
