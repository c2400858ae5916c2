#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "kernels/attention_targets.h"

namespace mneme::kernels {
namespace {

double score(const AttentionQueries& queries, const float* q, const float* k) {
  double dot = 0;
  for (size_t d = 0; d < queries.head_dim; ++d) dot += static_cast<double>(q[d]) * k[d];
  dot *= queries.scale;
  return queries.softcap > 0 ? queries.softcap * std::tanh(dot / queries.softcap) : dot;
}

/// One row of softmax_rows_scalar().
float softmax_row(const AttentionQueries& queries, float* scores, size_t lo, size_t hi, float& max, float& sum) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  float largest = max;
  for (size_t j = lo; j < hi; ++j) {
    scores[j] *= queries.scale;
    if (queries.softcap > 0) scores[j] = queries.softcap * std::tanh(scores[j] / queries.softcap);
    largest = std::max(largest, scores[j]);
  }
  const float base = largest == kNothing ? 0 : largest;
  double total = 0;
  for (size_t j = lo; j < hi; ++j) {
    scores[j] = std::exp(scores[j] - base);
    total += static_cast<double>(scores[j]);
  }
  const float keep = std::exp(max - base);
  max = largest;
  sum = sum * keep + static_cast<float>(total);
  return keep;
}

}  // namespace

void softmax_rows_scalar(const AttentionQueries& queries, float* scores, size_t n_rows, const size_t* lo, const size_t* hi,
                         float* max, float* sum, float* keep) {
  for (size_t r = 0; r < n_rows; ++r) {
    keep[r] = lo[r] < hi[r] ? softmax_row(queries, scores + 64 * r, lo[r], hi[r], max[r], sum[r]) : 1;
  }
}

void attend_scalar(const AttentionQueries& queries, const AttentionKeys& keys, const AttentionTriple& result) {
  constexpr double kNothing = -std::numeric_limits<double>::infinity();
  const DecodeFn decode = dtype_info(keys.dtype).decode;
  std::array<float, kMaxAttentionDim> element;
  std::array<double, kMaxAttentionDim> out;
  for (size_t i = 0; i < queries.n_rows; ++i) {
    const float* q = queries.q + i * queries.q_stride;
    float* row = result.out + i * result.out_stride;
    double max = result.max[i], sum = result.sum[i];
    std::copy_n(row, queries.value_dim, out.begin());
    for (size_t j = keys.first[i]; j < keys.last[i]; ++j) {
      decode(keys.k + j * keys.k_stride_bytes, element.data(), queries.head_dim);
      const double s = score(queries, q, element.data());
      if (s == kNothing) continue;
      if (s > max) {
        const double shrink = std::exp(max - s);
        for (size_t d = 0; d < queries.value_dim; ++d) out[d] *= shrink;
        sum *= shrink;
        max = s;
      }
      const double weight = std::exp(s - (max == kNothing ? 0 : max));  // max stays -inf when every score is NaN
      decode(keys.v + j * keys.v_stride_bytes, element.data(), queries.value_dim);
      for (size_t d = 0; d < queries.value_dim; ++d) out[d] += weight * element[d];
      sum += weight;
    }
    result.max[i] = static_cast<float>(max);
    // The stored maximum is rounded; sums and values are relative to the exact one, which merging must not notice.
    const double adjust = max == kNothing ? 1 : std::exp(max - static_cast<double>(result.max[i]));
    result.sum[i] = static_cast<float>(sum * adjust);
    for (size_t d = 0; d < queries.value_dim; ++d) row[d] = static_cast<float>(out[d] * adjust);
  }
}

}  // namespace mneme::kernels
