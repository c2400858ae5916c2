#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "kernels/attention_targets.h"
#include "kernels/vector_ops.h"

namespace mneme::kernels {

void attend(const AttentionQueries& queries, const AttentionKeys& keys, const AttentionTriple& result) {
  if (keys.dtype != DType::kF32 && keys.dtype != DType::kF16 && keys.dtype != DType::kBF16) {
    fail(ErrorCode::kUnsupported, "[attention] expected keys of type F32, F16 or BF16, found {}",
         dtype_info(keys.dtype).name);
  }
  if (std::max(queries.head_dim, queries.value_dim) > kMaxAttentionDim) {
    fail(ErrorCode::kUnsupported, "[attention] expected dimensions of at most {}, found head_dim {} and value_dim {}",
         kMaxAttentionDim, queries.head_dim, queries.value_dim);
  }
  const AttendFn simd = simd_attend(active_target());
  (simd != nullptr ? simd : attend_scalar)(queries, keys, result);
}

void merge_attention(const AttentionTriple& part, size_t n_rows, size_t value_dim, const AttentionTriple& result) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  const VectorOps& ops = vector_ops();
  for (size_t i = 0; i < n_rows; ++i) {
    if (part.max[i] == kNothing && part.sum[i] == 0) continue;
    const float max = std::max(part.max[i], result.max[i]);
    const float base = max == kNothing ? 0.0f : max;
    const float keep = std::exp(result.max[i] - base), take = std::exp(part.max[i] - base);
    float* out = result.out + i * result.out_stride;
    ops.scale(out, keep, value_dim, out);
    ops.add_scaled(part.out + i * part.out_stride, take, value_dim, out);
    result.sum[i] = result.sum[i] * keep + part.sum[i] * take;
    result.max[i] = max;
  }
}

void finish_attention(const AttentionTriple& result, size_t n_rows, size_t value_dim, const float* sink) {
  const VectorOps& ops = vector_ops();
  for (size_t i = 0; i < n_rows; ++i) {
    float numerator = 1, denominator = result.sum[i];
    if (sink != nullptr && denominator != 0) {
      const float max = std::max(result.max[i], sink[i]);
      numerator = std::exp(result.max[i] - max);
      denominator = denominator * numerator + std::exp(sink[i] - max);
    }
    float* out = result.out + i * result.out_stride;
    if (denominator == 0) {
      std::fill_n(out, value_dim, 0.0f);
    } else {
      ops.scale(out, numerator / denominator, value_dim, out);
    }
  }
}

}  // namespace mneme::kernels
