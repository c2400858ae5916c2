#pragma once

#include <cstddef>

#include "train/tape/parameter.h"

namespace mneme::train {

/// What an adapter adds to a linear layer (LoRA, arXiv 2106.09685): y += scale * B (A x). Terms of several adapters add
/// up; those whose factors are frozen pass the gradient of x on and get none themselves.
template <typename T>
struct LowRank {
  Parameter<T>* a;  ///< [r, inputs]
  Parameter<T>* b;  ///< [outputs, r]
  T scale;          ///< alpha / r

  size_t rank() const { return a->rows; }

  /// y [n, outputs] += scale * x A^T B^T; `scratch` has n r values.
  void forward(const T* x, size_t n, T* scratch, T* y) const;
  /// Adds to dx [n, inputs] and to the gradients of A and B; `scratch` has 2 n r values. With u = x A^T and
  /// du = scale * dy B: dB += scale * dy^T u, dA += du^T x, dx += du A.
  void backward(const T* x, const T* dy, size_t n, T* scratch, T* dx) const;
  /// w [outputs, inputs] += sign * scale * B A.
  void add_to(T* w, T sign = T{1}) const;
};

extern template struct LowRank<float>;
extern template struct LowRank<double>;

}  // namespace mneme::train
