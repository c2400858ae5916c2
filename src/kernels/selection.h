#pragma once

#include <cstddef>
#include <cstdint>

/// Choosing the largest of many scores without sorting them. All single-threaded.
namespace mneme::kernels {

/// The n-th largest of x [count], 1 <= n <= count, as one of the values of x; of equal ones each counts. No NaN. The
/// same on all targets.
float nth_largest(const float* x, size_t count, size_t n);

/// How many of x [count] are larger than `bound`; NaN are not.
size_t count_larger(const float* x, size_t count, float bound);

/// Room that find_at_least() wants behind the indices it finds.
inline constexpr size_t kFindRoom = 16;
/// Indices i of x [count] with x[i] >= bound, ascending, into `indices` [count + kFindRoom]; returns how many. NaN are
/// none of them.
size_t find_at_least(const float* x, size_t count, float bound, uint32_t* indices);

/// y[i] = max(y[i], x[i] + offset), where a NaN of the sum changes nothing.
void keep_larger(const float* x, size_t count, float offset, float* y);

/// log(sum of exp(x[i])) of x [count]: log softmax(x)[i] is x[i] less this. -inf of nothing or of -inf alone; NaN when
/// one of x is NaN or +inf. The same on all targets to 1e-6 (absolute, around 0).
float log_sum_exp(const float* x, size_t count);

/// What a target brings; one table per target (scalar, avx2, avx512, neon).
struct SelectionOps {
  size_t (*count_larger)(const float* x, size_t count, float bound);
  size_t (*find_at_least)(const float* x, size_t count, float bound, uint32_t* indices);
  void (*keep_larger)(const float* x, size_t count, float offset, float* y);
  float (*log_sum_exp)(const float* x, size_t count);
};

}  // namespace mneme::kernels
