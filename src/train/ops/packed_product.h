#pragma once

#include <cstddef>

#include "tensor/tensor.h"

/// Products with a frozen matrix that stays in its stored form (packed integers with scales), in both directions, for
/// training adapters on top of it (arXiv 2306.08162). Tiles of at most 32 x 256 values are decoded on the stack of the
/// thread that multiplies with them; the matrix as a whole is never unpacked, in forward or backward.
namespace mneme::train {

/// y = x W^T: x [n, columns of W], y [n, rows of W]; added to y when `accumulate`. Parallel. Sums in T.
template <typename T>
void packed_multiply(const TensorView& w, const T* x, size_t n, bool accumulate, T* y);

/// The transposed product dx = dy W: dy [n, rows of W], dx [n, columns of W]; added to dx when `accumulate`. Parallel.
template <typename T>
void packed_multiply_transposed(const TensorView& w, const T* dy, size_t n, bool accumulate, T* dx);

extern template void packed_multiply(const TensorView&, const float*, size_t, bool, float*);
extern template void packed_multiply(const TensorView&, const double*, size_t, bool, double*);
extern template void packed_multiply_transposed(const TensorView&, const float*, size_t, bool, float*);
extern template void packed_multiply_transposed(const TensorView&, const double*, size_t, bool, double*);

}  // namespace mneme::train
