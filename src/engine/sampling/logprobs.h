#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "engine/sampling/vocabulary_view.h"

namespace mneme {

/// A token with the natural logarithm of its probability.
struct TokenLogprob {
  TokenId id;
  float logprob;
};

/// Log-probabilities of the model itself, before any sampler.
struct Logprobs {
  TokenLogprob chosen;
  std::vector<TokenLogprob> top;  ///< best first; ties by lower id
};

/// ln softmax(logits) of `chosen` and of the `n_top` best tokens (fewer when fewer are not banned). O(n_vocab).
/// Throws Error(kInvalidArgument) for NaN or +inf logits or an id out of range.
Logprobs token_logprobs(std::span<const float> logits, TokenId chosen, size_t n_top);

/// The `n_top` best tokens only.
std::vector<TokenLogprob> top_logprobs(std::span<const float> logits, size_t n_top);

}  // namespace mneme
