#pragma once

#include <functional>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "eval/perplexity.h"

namespace mneme {

/// Quality of a BitStack model at one size.
struct StackPoint {
  size_t blocks = 0;
  uint64_t bytes = 0;          ///< Of all weights, the others included.
  double bits_per_weight = 0;  ///< Of the stacked matrices.
  PerplexityResult quality;
};

/// Perplexity at `n_sizes` sizes from one block of each matrix to all, evenly spaced in blocks. The stack is grown step
/// by step; afterwards it has its old target. Neighbours need not be in order of quality: the curve is measured, not
/// assumed. Throws Error(kInvalidArgument) for a model without a stack.
std::vector<StackPoint> measure_stack_curve(Engine& engine, std::span<const TokenId> tokens,
                                            const PerplexityOptions& options, size_t n_sizes,
                                            const std::function<void(size_t done, size_t all)>& progress);

/// Perplexity with the largest stack whose weights take at most `bytes`.
StackPoint measure_stack_at(Engine& engine, std::span<const TokenId> tokens, const PerplexityOptions& options,
                            uint64_t bytes);

/// Rank correlation of two lists of the same length (Spearman), mean ranks for equal values.
double rank_correlation(std::span<const double> a, std::span<const double> b);

}  // namespace mneme
