#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "engine/sampling/candidates.h"
#include "engine/sampling/sampling_options.h"

namespace mneme {

/// logit += bias for each pair; -inf bans the token. A token listed more than once gets the sum.
class LogitBias {
 public:
  explicit LogitBias(std::span<const std::pair<TokenId, float>> bias);
  void apply(Candidates& candidates) const;

 private:
  std::vector<TokenId> ids_;  ///< ascending
  std::vector<float> bias_;
};

/// Repetition, frequency and presence penalties over a window of tokens. For each token that occurs c > 0 times in the
/// window:
///   logit = logit <= 0 ? logit * repeat : logit / repeat;   logit -= c * frequency + presence.
/// The caller tells which tokens enter and leave the window; applying costs O(different tokens in the window).
class Penalties {
 public:
  Penalties(float repeat, float frequency, float presence)
      : repeat_(repeat), frequency_(frequency), presence_(presence) {}

  void enter(TokenId token) { ++counts_[token]; }
  void leave(TokenId token);
  void apply(Candidates& candidates) const;
  bool active() const { return repeat_ != 1 || frequency_ != 0 || presence_ != 0; }

 private:
  float repeat_, frequency_, presence_;
  std::map<TokenId, uint32_t> counts_;
};

}  // namespace mneme
