#include "kernels/coded_attention.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels/attention_targets.h"
#include "kernels/vector_ops.h"

namespace mneme::kernels {
namespace {

/// Rows whose scores exist at the same time.
constexpr size_t kPanelRows = 16;

/// scores[r][token] = q[r] . key[token] of all 64 tokens, not scaled.
void score_block(const AttentionQueries& queries, size_t row, size_t n_rows, const BlockKeys& keys,
                 float (&scores)[kPanelRows][kBlockTokens]) {
  alignas(64) float picked[kPanelRows * kMaxAttentionDim];
  const float* q = queries.q + row * queries.q_stride;
  size_t stride = queries.q_stride;
  if (keys.channels != nullptr) {
    for (size_t r = 0; r < n_rows; ++r) {
      for (size_t c = 0; c < keys.n_channels; ++c) picked[r * keys.n_channels + c] = q[r * stride + keys.channels[c]];
    }
    q = picked;
    stride = keys.n_channels;
  }
  const VectorOps& ops = vector_ops();
  if (keys.matrix != nullptr) {
    for (size_t r = 0; r < n_rows; ++r) std::fill_n(scores[r], kBlockTokens, 0.0f);
    keys.matrix->multiply(keys.data, q, stride, n_rows, scores[0], kBlockTokens);
  } else {
    alignas(64) float key[kMaxAttentionDim];
    for (size_t j = 0; j < kBlockTokens; ++j) {
      ops.f16_to_f32(keys.data + 2 * j * keys.n_channels, keys.n_channels, key);
      for (size_t r = 0; r < n_rows; ++r) scores[r][j] = ops.dot(q + r * stride, key, keys.n_channels);
    }
  }
  for (size_t r = 0; keys.norms != nullptr && r < n_rows; ++r) ops.multiply(scores[r], keys.norms, kBlockTokens, scores[r]);
}

/// Scores of the tokens that have keys of their own.
void score_exceptions(const AttentionQueries& queries, size_t row, size_t n_rows, const BlockExceptions& exceptions,
                      float (&scores)[kPanelRows][kBlockTokens]) {
  const VectorOps& ops = vector_ops();
  alignas(64) float key[kMaxAttentionDim];
  for (size_t i = 0; i < exceptions.n; ++i) {
    ops.f16_to_f32(exceptions.rows + i * exceptions.stride_bytes, queries.head_dim, key);
    for (size_t r = 0; r < n_rows; ++r) {
      scores[r][exceptions.tokens[i]] = ops.dot(queries.q + (row + r) * queries.q_stride, key, queries.head_dim);
    }
  }
}

/// out[r] += sum over tokens of weights[r][token] * value[token].
void add_block_values(const BlockValues& values, const BlockExceptions& exceptions,
                      float (&weights)[kPanelRows][kBlockTokens], size_t n_rows, size_t value_dim, float* out,
                      size_t out_stride) {
  for (size_t i = 0; i < exceptions.n; ++i) {
    alignas(64) float value[kMaxAttentionDim];
    vector_ops().f16_to_f32(exceptions.rows + i * exceptions.stride_bytes, value_dim, value);
    for (size_t r = 0; r < n_rows; ++r) {
      vector_ops().add_scaled(value, std::exchange(weights[r][exceptions.tokens[i]], 0.0f), value_dim, out + r * out_stride);
    }
  }
  for (size_t r = 0; values.norms != nullptr && r < n_rows; ++r) {
    vector_ops().multiply(weights[r], values.norms, kBlockTokens, weights[r]);
  }
  if (values.matrix != nullptr) {
    values.matrix->multiply(values.data, weights[0], kBlockTokens, n_rows, out, out_stride);
    return;
  }
  const VectorOps& ops = vector_ops();
  alignas(64) float value[kMaxAttentionDim];
  for (size_t j = 0; j < kBlockTokens; ++j) {
    ops.f16_to_f32(values.data + 2 * j * value_dim, value_dim, value);
    for (size_t r = 0; r < n_rows; ++r) {
      if (weights[r][j] != 0) ops.add_scaled(value, weights[r][j], value_dim, out + r * out_stride);
    }
  }
}

}  // namespace

void attend_block(const AttentionQueries& queries, const BlockKeys& keys, const BlockValues& values, const uint32_t* first,
                  const uint32_t* last, const AttentionTriple& result, const BlockExceptions& key_exceptions,
                  const BlockExceptions& value_exceptions) {
  const SoftmaxRowsFn simd = simd_softmax_rows(active_target());
  const SoftmaxRowsFn softmax_rows = simd != nullptr ? simd : softmax_rows_scalar;
  alignas(64) float scores[kPanelRows][kBlockTokens];
  size_t lo[kPanelRows], hi[kPanelRows];
  float keep[kPanelRows];
  for (size_t row = 0; row < queries.n_rows; row += kPanelRows) {
    const size_t n = std::min(kPanelRows, queries.n_rows - row);
    score_block(queries, row, n, keys, scores);
    score_exceptions(queries, row, n, key_exceptions, scores);
    for (size_t r = 0; r < n; ++r) {
      hi[r] = std::min<size_t>(last[row + r], kBlockTokens);
      lo[r] = std::min<size_t>(first[row + r], hi[r]);
    }
    softmax_rows(queries, scores[0], n, lo, hi, result.max + row, result.sum + row, keep);
    for (size_t r = 0; r < n; ++r) {
      if (lo[r] > 0) std::fill(scores[r], scores[r] + lo[r], 0.0f);
      if (hi[r] < kBlockTokens) std::fill(scores[r] + hi[r], scores[r] + kBlockTokens, 0.0f);
      float* const out = result.out + (row + r) * result.out_stride;
      if (keep[r] != 1) vector_ops().scale(out, keep[r], queries.value_dim, out);
    }
    add_block_values(values, value_exceptions, scores, n, queries.value_dim, result.out + row * result.out_stride, result.out_stride);
  }
}

namespace {

constexpr size_t kBlocksAtOnce = 4;

bool are_plain(std::span<const BlockKeys> keys, std::span<const BlockValues> values) {
  for (size_t b = 0; b < keys.size(); ++b) {
    if (keys[b].matrix == nullptr || keys[b].matrix != keys[0].matrix || keys[b].channels != nullptr) return false;
    if (values[b].matrix == nullptr || values[b].matrix != values[0].matrix) return false;
    if (keys[b].norms != nullptr || values[b].norms != nullptr) return false;
  }
  return true;
}

/// Up to kBlocksAtOnce plain blocks: scores of all, softmax of one after the other, values of all.
void attend_plain(const AttentionQueries& queries, std::span<const BlockKeys> keys, std::span<const BlockValues> values,
                  const AttentionTriple& result) {
  const SoftmaxRowsFn simd = simd_softmax_rows(active_target());
  const SoftmaxRowsFn softmax_rows = simd != nullptr ? simd : softmax_rows_scalar;
  static constexpr std::array<size_t, kPanelRows> kNone{};
  static constexpr auto kAll = [] {
    std::array<size_t, kPanelRows> all{};
    all.fill(kBlockTokens);
    return all;
  }();
  alignas(64) float scores[kBlocksAtOnce][kPanelRows * kBlockTokens];
  float keep[kBlocksAtOnce][kPanelRows];
  CodedMatrix::Product products[kBlocksAtOnce];
  const size_t n_blocks = keys.size();
  for (size_t row = 0; row < queries.n_rows; row += kPanelRows) {
    const size_t n = std::min(kPanelRows, queries.n_rows - row);
    float* const out = result.out + row * result.out_stride;
    for (size_t b = 0; b < n_blocks; ++b) {
      std::fill_n(scores[b], n * kBlockTokens, 0.0f);
      products[b] = {keys[b].data, queries.q + row * queries.q_stride, scores[b], row == 0 ? keys[b].ahead : nullptr};
    }
    keys[0].matrix->multiply({products, n_blocks}, queries.q_stride, n, kBlockTokens);
    for (size_t b = 0; b < n_blocks; ++b) {
      softmax_rows(queries, scores[b], n, kNone.data(), kAll.data(), result.max + row, result.sum + row, keep[b]);
      products[b] = {values[b].data, scores[b], out, row == 0 ? values[b].ahead : nullptr};
    }
    // Weights and sums so far follow the maxima that came after them.
    for (size_t r = 0; r < n; ++r) {
      float later = 1;
      for (size_t b = n_blocks; b-- > 0;) {
        float* const weights = scores[b] + r * kBlockTokens;
        if (later != 1) vector_ops().scale(weights, later, kBlockTokens, weights);
        later *= keep[b][r];
      }
      if (later != 1) vector_ops().scale(out + r * result.out_stride, later, queries.value_dim, out + r * result.out_stride);
    }
    values[0].matrix->multiply({products, n_blocks}, kBlockTokens, n, result.out_stride);
  }
}

}  // namespace

void attend_blocks(const AttentionQueries& queries, std::span<const BlockKeys> keys, std::span<const BlockValues> values,
                   const AttentionTriple& result) {
  std::vector<uint32_t> range;
  for (size_t first = 0, n; first < keys.size(); first += n) {
    n = std::min(kBlocksAtOnce, keys.size() - first);
    if (are_plain(keys.subspan(first, n), values.subspan(first, n))) {
      attend_plain(queries, keys.subspan(first, n), values.subspan(first, n), result);
      continue;
    }
    range.assign(2 * queries.n_rows, 0);
    std::fill_n(range.begin() + static_cast<long>(queries.n_rows), queries.n_rows, static_cast<uint32_t>(kBlockTokens));
    for (size_t b = first; b < first + n; ++b) {
      attend_block(queries, keys[b], values[b], range.data(), range.data() + queries.n_rows, result);
    }
  }
}

void add_block_weights(const AttentionQueries& queries, const BlockKeys& keys, const uint32_t* first, const uint32_t* last,
                       const float* max, const float* sum, float* weights) {
  alignas(64) float scores[kPanelRows][kBlockTokens];
  for (size_t row = 0; row < queries.n_rows; row += kPanelRows) {
    const size_t n = std::min(kPanelRows, queries.n_rows - row);
    score_block(queries, row, n, keys, scores);
    for (size_t r = 0; r < n; ++r) {
      const size_t hi = std::min<size_t>(last[row + r], kBlockTokens);
      for (size_t j = first[row + r]; j < hi; ++j) {
        float score = scores[r][j] * queries.scale;
        if (queries.softcap > 0) score = queries.softcap * std::tanh(score / queries.softcap);
        weights[j] += std::exp(score - max[row + r]) / sum[row + r];
      }
    }
  }
}

}  // namespace mneme::kernels
