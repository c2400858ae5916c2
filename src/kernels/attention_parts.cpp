#include "kernels/attention_parts.h"

#include <cassert>

#include "base/half.h"
#include "kernels/attention_targets.h"

namespace mneme::kernels {
namespace {

float element(const StoredRows& rows, size_t row, size_t i) {
  const std::byte* const at = rows.data + row * rows.stride_bytes;
  if (rows.dtype == DType::kF32) return reinterpret_cast<const float*>(at)[i];
  return f16_to_f32(reinterpret_cast<const uint16_t*>(at)[i]);
}

void score_rows_scalar(const float* q, size_t q_stride, size_t n_rows, const StoredRows& keys, size_t n_keys,
                       size_t dim, float* scores, size_t scores_stride) {
  for (size_t r = 0; r < n_rows; ++r) {
    for (size_t j = 0; j < n_keys; ++j) {
      double sum = 0;
      for (size_t i = 0; i < dim; ++i) {
        sum += static_cast<double>(q[r * q_stride + i]) * static_cast<double>(element(keys, j, i));
      }
      scores[r * scores_stride + j] = static_cast<float>(sum);
    }
  }
}

void combine_rows_scalar(const float* weights, size_t weights_stride, size_t n_rows, const StoredRows& values,
                         size_t n_values, size_t dim, float* out, size_t out_stride) {
  for (size_t r = 0; r < n_rows; ++r) {
    for (size_t j = 0; j < n_values; ++j) {
      for (size_t i = 0; i < dim; ++i)
        out[r * out_stride + i] += weights[r * weights_stride + j] * element(values, j, i);
    }
  }
}

}  // namespace

void score_rows(const float* q, size_t q_stride, size_t n_rows, const StoredRows& keys, size_t n_keys, size_t dim,
                float* scores, size_t scores_stride) {
  assert(dim <= kMaxAttentionDim && (keys.dtype == DType::kF32 || keys.dtype == DType::kF16));
  const ScoreRowsFn simd = simd_score_rows(active_target());
  (simd != nullptr ? simd : score_rows_scalar)(q, q_stride, n_rows, keys, n_keys, dim, scores, scores_stride);
}

void combine_rows(const float* weights, size_t weights_stride, size_t n_rows, const StoredRows& values, size_t n_values,
                  size_t dim, float* out, size_t out_stride) {
  assert(values.dtype == DType::kF32 || values.dtype == DType::kF16);
  const CombineRowsFn simd = simd_combine_rows(active_target());
  (simd != nullptr ? simd : combine_rows_scalar)(weights, weights_stride, n_rows, values, n_values, dim, out,
                                                 out_stride);
}

}  // namespace mneme::kernels
