#pragma once

#include <cstddef>

#include "kernels/matmul.h"

/// Products with BitStack matrices (arXiv 2410.23918, tensor/bitstack.h), W = sum over i of S_i * (U_i V_i), in two
/// ways:
///
///   tiles   each tile of W is put together as bfloat16, once a batch, and multiplied as such
///   (products/bitstack_tile-inl.h):
///           k multiplications a weight and block, whatever the number of tokens
///   signs   y = sum over i, j of u_ij * (S_i z_ij),  z_ij = v_ij * x rounded to 8 bits in blocks of 32: k products of
///   +-1
///           with 8-bit integers a weight, block and token, by the kernels of all 8-bit types, so with equal integers
///           on every processor
///
/// Few tokens take signs, many take tiles. The two round differently, by up to about a hundredth of the result.
namespace mneme::kernels {

/// True when this matrix (of any type) and number of tokens multiply by signs.
bool wants_signs(const Matrix& w, size_t n_tokens);

/// Runs a task by signs. Takes signs_scratch_bytes() from the input.
void multiply_by_signs(const MatmulTask& task, MatmulInput& x);

/// Upper bound of its working memory for inputs of `columns`.
size_t signs_scratch_bytes(size_t columns);

}  // namespace mneme::kernels
