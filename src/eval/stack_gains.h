#pragma once

#include <functional>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "eval/perplexity.h"
#include "weights/stack_order.h"

namespace mneme {

/// What each BitStack block of a model gains, measured: the loss (mean negative log-likelihood of `tokens`, in nats)
/// with every matrix at b blocks less the loss with this one at b + 1. One pass over the tokens for each block but the
/// first ones, so that the cost is (blocks a matrix - 1) times the matrices. `engine` must have all blocks loaded.
/// Throws Error.
std::vector<bitstack::StackedGains> measure_stack_gains(Engine& engine, std::span<const TokenId> tokens,
                                                        const PerplexityOptions& options,
                                                        const std::function<void(size_t done, size_t all)>& progress);

/// Writes the model at `path` once more with its blocks in the order of measured gains.
void sort_stack_by_perplexity(const std::string& path, std::span<const TokenId> tokens,
                              const PerplexityOptions& options, bitstack::StackOrder order,
                              const std::function<void(size_t done, size_t all)>& progress);

}  // namespace mneme
