#pragma once

#include <cstddef>
#include <cstdint>

/// Dense products of training: C = alpha * op(A) op(B) + beta * C, row-major, op = transpose where asked.
namespace mneme::train {

/// Shapes and layout of one product: A is [m, k] (or [k, m] when transposed), B is [k, n] (or [n, k]), C is [m, n].
/// The strides are the distances between rows as stored, in elements.
struct GemmShape {
  size_t m, n, k;
  bool transpose_a, transpose_b;
  size_t stride_a, stride_b, stride_c;
};

/// f32 through oneDNN. Parallel inside unless called from a parallel loop.
void gemm(const GemmShape& shape, float alpha, const float* a, const float* b, float beta, float* c);
/// f64, plain blocked loops; for gradient checks.
void gemm(const GemmShape& shape, double alpha, const double* a, const double* b, double beta, double* c);

/// A and B in bfloat16, products and sums in f32; adds to C when `accumulate`. Twice the rate of f32 on processors with
/// bf16 dot products; without AVX-512 the operands are widened and the products are those of f32, in pieces of a few MiB.
/// Dense rows only: the strides must equal the stored row lengths.
void gemm_bf16(const GemmShape& shape, const uint16_t* a, const uint16_t* b, bool accumulate, float* c);

}  // namespace mneme::train
