#pragma once

#include <cstddef>

#include "tensor/dtype.h"

/// The two products of attention on their own, for stores that choose keys by scores or keep them as combinations of
/// others.
namespace mneme::kernels {

/// Rows of f32 or f16 that lie `stride_bytes` apart.
struct StoredRows {
  const std::byte* data;
  size_t stride_bytes;
  DType dtype;
};

/// scores[r * scores_stride + j] = q[r] . key[j] over `dim` elements; q rows q_stride floats apart. dim <= 576 (see
/// kMaxAttentionDim). Single-threaded; a score does not depend on the rows and keys beside it.
void score_rows(const float* q, size_t q_stride, size_t n_rows, const StoredRows& keys, size_t n_keys, size_t dim,
                float* scores, size_t scores_stride);

/// out[r] += sum over j of weights[r * weights_stride + j] * values[j], rows of `dim` elements, any dim.
/// Single-threaded; a row does not depend on the rows beside it.
void combine_rows(const float* weights, size_t weights_stride, size_t n_rows, const StoredRows& values, size_t n_values,
                  size_t dim, float* out, size_t out_stride);

}  // namespace mneme::kernels
