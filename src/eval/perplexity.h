#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "engine/engine.h"

namespace mneme {

struct PerplexityOptions {
  uint32_t window = 512;     ///< Tokens of one independent window; each starts with an empty context (after BOS, if the
                             ///< model wants one).
  uint32_t first_scored = 0; ///< Tokens of a window that are only read; 0: half the window.
  uint64_t max_windows = 0;  ///< 0: all.
};

struct PerplexityResult {
  double perplexity = 0;
  double nll = 0;            ///< Mean negative log-likelihood of a token, in nats.
  double nll_error = 0;      ///< Its standard error over tokens.
  uint64_t n_scored = 0;
  uint64_t n_windows = 0;
};

/// Perplexity of a token sequence: exp of the mean negative log-likelihood of the scored tokens. The rest behind the last
/// whole window is left out. Throws Error(kInvalidArgument) when not even one window fits.
PerplexityResult perplexity(Engine& engine, std::span<const TokenId> tokens, const PerplexityOptions& options,
                            const std::function<void(uint64_t windows_done, uint64_t windows)>& progress);

/// -log softmax(logits)[token], in nats.
double negative_log_likelihood(std::span<const float> logits, TokenId token);

}  // namespace mneme
