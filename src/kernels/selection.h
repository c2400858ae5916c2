#pragma once

#include <cstddef>

/// Choosing the largest of many scores without sorting them.
namespace mneme::kernels {

/// The n-th largest of x [count], 1 <= n <= count, as one of the values of x; of equal ones each counts. No NaN.
/// Single-threaded; the same on all targets.
float nth_largest(const float* x, size_t count, size_t n);

/// How many of x [count] are larger than `bound`; NaN are not.
size_t count_larger(const float* x, size_t count, float bound);

/// y[i] = x[i] > y[i] ? x[i] : y[i], so that a NaN of x changes nothing.
void keep_larger(const float* x, size_t count, float* y);

/// What a target brings; one table per target (scalar, avx2, avx512, neon).
struct SelectionOps {
  size_t (*count_larger)(const float* x, size_t count, float bound);
  void (*keep_larger)(const float* x, size_t count, float* y);
};

}  // namespace mneme::kernels
