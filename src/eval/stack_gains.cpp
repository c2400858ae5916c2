#include "eval/stack_gains.h"

#include <algorithm>

#include "base/error.h"
#include "tensor/bitstack.h"
#include "weights/stack_file.h"

namespace mneme {

std::vector<bitstack::StackedGains> measure_stack_gains(Engine& engine, std::span<const TokenId> tokens,
                                                        const PerplexityOptions& options,
                                                        const std::function<void(size_t, size_t)>& progress) {
  BlockStack* const stack = engine.model().weights.stack.get();
  if (stack == nullptr || stack->status().loaded < stack->n_blocks()) {
    fail(ErrorCode::kInvalidArgument, "[order] expected a model with all its BITSTACK blocks loaded, {}",
         engine.file().path());
  }
  const std::vector<bitstack::StackedMatrix> matrices = bitstack::stacked_matrices(engine.file());
  std::vector<bitstack::StackedGains> out;
  std::vector<uint32_t> levels(matrices.size(), 1);
  size_t all = 0, done = 0, most = 0;
  for (const bitstack::StackedMatrix& matrix : matrices) {
    const size_t n = matrix.blocks.size();
    out.push_back({n == 0 ? 0 : matrix.blocks.front().size(), std::vector<double>(n, 0.0)});
    all += n > 1 ? n - 1 : 0;
    most = std::max(most, n);
  }
  const auto loss = [&] {
    stack->set_levels(levels);
    return perplexity(engine, tokens, options, [](uint64_t, uint64_t) {}).nll;
  };
  for (uint32_t level = 1; level < most; ++level) {
    std::fill(levels.begin(), levels.end(), level);
    const double before = loss();
    for (size_t m = 0; m < matrices.size(); ++m) {
      if (level >= out[m].gains.size()) continue;
      levels[m] = level + 1;
      out[m].gains[level] = before - loss();
      levels[m] = level;
      progress(++done, all);
    }
  }
  std::fill(levels.begin(), levels.end(), bitstack::kMostBlocks);
  stack->set_levels(levels);
  return out;
}

void sort_stack_by_perplexity(const std::string& path, std::span<const TokenId> tokens,
                              const PerplexityOptions& options, bitstack::StackOrder order,
                              const std::function<void(size_t, size_t)>& progress) {
  Ledger ledger;
  PlanRequest request;
  request.context = options.window;
  const auto engine = Engine::load(path, request, ledger);
  const std::vector<bitstack::StackedGains> gains = measure_stack_gains(*engine, tokens, options, progress);
  const ModelFile& file = engine->file();
  // The file is replaced by a new one; what is mapped stays the old one.
  bitstack::write_stack(path, file.metadata(), bitstack::other_tensors(file), bitstack::stacked_matrices(file),
                        bitstack::order_blocks(order, gains, 0));
}

}  // namespace mneme
