#pragma once

#include <cstdint>
#include <functional>

#include "train/tape/parameter.h"

/// Trained matrices in bfloat16 without f32 masters. An update reads a matrix as f32, changes it, and rounds it back
/// stochastically: up with the probability of the part that is cut off, so that the mean of many small updates is what
/// f32 would have gained, where rounding to nearest would lose every update below half a step (arXiv 1502.02551,
/// section 2.1).
namespace mneme::train {

/// y = x rounded to bfloat16 at random; the draws depend on (seed, stream, index of the value) alone. Serial.
void round_stochastically(const float* x, size_t n, uint64_t seed, uint64_t stream, uint16_t* y);

/// Updates of matrices in bfloat16, with room for the largest one in f32.
class Bf16Weights {
 public:
  /// Takes 4 bytes for each value of the largest stored matrix, under Tag::kScratch; nothing when there is none.
  Bf16Weights(Ledger& ledger, const ParameterSet<float>& parameters, uint64_t seed);

  /// Runs update() while parameter.value holds its values in f32, then stores what they became. Parameters with values
  /// of their own are updated in place. `draw` must differ from call to call: a resumed run repeats the bits.
  void update(Parameter<float>& parameter, uint64_t draw, const std::function<void()>& update);

 private:
  uint64_t seed_;
  Buffer values_;
};

}  // namespace mneme::train
