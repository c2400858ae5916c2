#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace mneme::train {

/// One packed micro-batch: several sequences on one token axis, without padding.
struct Batch {
  std::span<const int32_t> tokens;             ///< [n] input ids
  std::span<const int32_t> targets;            ///< [n] id to predict at each position; unused where the weight is 0
  std::span<const float> weights;              ///< [n] weight of the position in the loss, 0: not predicted
  std::span<const uint32_t> sequence_starts;   ///< [n_sequences + 1], first 0, last n
  double loss_scale = 1;                       ///< Factor of the summed loss, usually 1 / sum of all weights of the step.

  size_t n_tokens() const { return tokens.size(); }
  size_t n_sequences() const { return sequence_starts.size() - 1; }
};

/// A range of token rows.
struct Rows {
  size_t begin, end;
  size_t count() const { return end - begin; }
};

}  // namespace mneme::train
