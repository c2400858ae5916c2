#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "budget/ledger.h"
#include "tensor/bitstack.h"

/// How a matrix becomes a stack of blocks: iterative absolute-value decomposition (BitStack, arXiv 2410.23918). With W
/// [rows, columns] and scales s [columns] of the input channels:
///
///     R_0 = W diag(s),   S_i = sign(R_i),   |R_i| ~ U_i V_i of rank k (truncated SVD),   R_{i+1} = R_i - S_i * (U_i
///     V_i)
///
/// |R| is nearly of rank one where R is not, so a small k takes most of it, and the signs keep the rank of S * (U V)
/// high. Stored are S_i, U_i and V_i diag(1 / s) in half precision: the scales cost nothing at run time, and need no
/// norm or other producer of the inputs to move into. The residual is computed with the factors as they are stored, so
/// that each block also repairs the rounding of those before it (the authors' code uses the unrounded ones).
///
/// s_j is the root mean square of channel j over the calibration text, over its geometric mean; the paper takes the
/// mean over sequences of the norm over tokens, which is nearly in proportion.
namespace mneme::bitstack {

struct Decomposition {
  uint32_t vectors = 1;
  std::vector<std::vector<std::byte>> blocks;  ///< Fewer than asked for when nothing is left over.
  std::vector<double> errors;  ///< After 0, 1, ... blocks: sum of (R_i)^2, which weighs W's errors with s^2.
};

/// Decomposes `w` [rows, columns], which becomes R. `scales` may be empty: all ones. Working memory comes from
/// `ledger`. The result depends on the arguments alone. Throws Error(kInvalidArgument) for values that are not finite,
/// or whose factors do not fit half precision.
Decomposition decompose(std::span<float> w, const BlockLayout& layout, std::span<const float> scales, uint32_t n_blocks,
                        Ledger& ledger);

/// Scales from the mean squares of input channels: their roots over the geometric mean. Empty for an empty list.
std::vector<float> channel_scales(std::span<const float> mean_squares);

}  // namespace mneme::bitstack
