#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "tensor/dtype.h"

/// Stochastic rounding (A Survey of Quantization Methods, arXiv 2103.13630, section III.F): a value between two levels
/// becomes the upper one with the probability of its distance from the lower, so that the mean over many draws is the
/// value itself. For one weight that is worse than the nearest level (twice the mean squared error); sums of many
/// weights have no bias.
///
///     x -> s (low + unit floor((x / s - low) / unit + u)),   u uniform in [0, 1)
///
/// with s the scale that the format's own rule stores for the block and u a pure function of seed, tensor and element
/// (Philox), whatever the order or the threads.
///
/// The value of largest magnitude in a block, which makes the scale, goes to the nearest level. Encoding the rounded
/// row then finds the same scale and codes again, so that nothing in the encoders knows of this.
namespace mneme {

/// True for types whose blocks have one half-precision scale and integer codes: Q4_0, Q5_0, Q8_0, BIPOLAR2 to BIPOLAR8.
bool can_round_stochastically(DType to);

/// The stream of random numbers of a tensor.
uint64_t rounding_stream(std::string_view tensor_name);

/// Rounds a row in place to levels of `to`, for which can_round_stochastically() holds; row.size() is a multiple of its
/// blocks. `first`: index in the tensor of the row's first element. Blocks whose scale is zero or does not fit a half
/// stay as they are.
void round_stochastically(std::span<float> row, DType to, uint64_t seed, uint64_t stream, uint64_t first);

}  // namespace mneme
