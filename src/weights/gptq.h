#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "budget/ledger.h"
#include "tensor/dtype.h"

/// GPTQ (arXiv 2210.17323): quantises a matrix W [rows, columns] column by column, and moves the error of each column
/// into those that are still to come, so that the outputs on calibration inputs change least:
///
///     minimise ||(W - Q) X||^2,  H = X X^T + damping * mean(diag H) * I,  H^-1 = U^T U with U upper triangular
///     e_j = (w_j - q_j) / U_jj,  w_k -= e_j U_jk for k > j      (each row by itself)
///
/// When a block of the format is reached, the format's own encoder chooses its scales. The columns of the block then
/// choose from the levels that these allow, one after another, and their codes replace the encoder's. Of types with one
/// scale a block, whose codes nobody else can write (tensor/block_codes.h), the levels are the values that the encoder
/// gave to the block; if it does not find the choices again as they are, its own stay and the error only goes to later
/// blocks.
///
/// Not here: the order of columns by activation.
namespace mneme {

/// The factor U [columns, columns] (row-major, zeros below the diagonal) for a sum of x x^T over any number of inputs.
/// Columns that never had an input count as ones.
std::vector<float> gptq_factor(std::span<const float> gram, size_t columns, float damping);

/// Stores `w` [rows, columns] as `to` in row_bytes(to, columns) * rows bytes at `out`. `importance` [columns] goes to
/// the encoder; may be null. w is overwritten with the weights after feedback. Parallel inside.
void gptq_encode(std::span<float> w, size_t columns, std::span<const float> factor, const float* importance, DType to,
                 std::byte* out);

/// Sum over rows of e H e^T for e = a - b, with H the gram matrix: the squared output error on the calibration inputs.
double output_error(std::span<const float> a, std::span<const float> b, std::span<const float> gram, size_t columns);

}  // namespace mneme
