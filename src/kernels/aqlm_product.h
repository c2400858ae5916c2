#pragma once

#include <cstddef>

#include "kernels/matmul.h"

/// Products with AQLM matrices (tensor/aqlm.h) in two ways:
///
///   tiles   each tile is decoded to f32, once a batch, and multiplied as such (products/stripes-inl.h): exact but for
///   the
///           rounding of f32 sums
///   tables  y[r] = s[r] * sum over groups j and codebooks m of table[j, m][code[r, j, m]]: 2^B products of a group of
///           the input with the vectors of a codebook, for all rows at once, then an addition a code
///           (products/aqlm_tables-inl.h). Codes of at most 8 bits; the entries of 16 tables are rounded to 255 levels
///           of one scale, so a sum of n tables is off by at most half a step each: |error| <= |s[r]| * sum over blocks
///           of 16 tables of 16 * max|table| / 254
///
/// Few tokens take tables, many take tiles. On random inputs the two differ by about a hundredth of the result.
namespace mneme::kernels {

/// True when this matrix (of any type) and number of tokens multiply by tables.
bool wants_tables(const Matrix& w, size_t n_tokens);

/// Runs a task by tables. Takes tables_scratch_bytes() from the input.
void multiply_by_tables(const MatmulTask& task, MatmulInput& x);

/// Upper bound of its working memory for inputs of `columns`.
size_t tables_scratch_bytes(size_t columns);

}  // namespace mneme::kernels
