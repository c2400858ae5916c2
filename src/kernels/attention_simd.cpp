#include "kernels/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention_simd.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <limits>

#include "kernels/attention_softmax-inl.h"
#include "kernels/attention_stored-inl.h"
#include "kernels/attention_targets.h"
#include "kernels/attention_tiles-inl.h"

// A run is cut into blocks of keys at multiples of the block size from its start. Of each block the keys are converted
// once to a transposed f32 scratch, so that a vector holds one dimension of kLanes keys; then panels of query rows pass
// over it: scores, online softmax, weighted values. A score is one chain of fused multiply-adds over the dimensions and
// an output element one chain over the keys, whatever the tile; this is what makes a row's bits independent of the rows
// beside it.
HWY_BEFORE_NAMESPACE();
namespace mneme::kernels::HWY_NAMESPACE {
namespace {

constexpr size_t kScratchFloats = 16 * kMaxAttentionDim;
/// Rows whose scores exist at the same time: few enough that they and one of the scratches fit L1.
constexpr size_t kPanelRows = 24;
/// Up to so many rows keys and values are converted where they are used, which beats a detour over scratch.
constexpr size_t kStoredRows = 12;
constexpr size_t kSecondCacheBytes = size_t{256} << 10;
/// Keys of a block: a power of two that depends on the dimensions alone, so that splitting a run at a multiple of 64 keys
/// changes nothing.
size_t block_keys(size_t head_dim, size_t value_dim) {
  const size_t largest = std::max(head_dim, value_dim);
  return largest <= 128 ? 64 : largest <= 256 ? 32 : 16;
}

struct Panel {
  size_t n_rows;
  size_t lo[kPanelRows], hi[kPanelRows];  ///< Visible keys of the block, empty as lo == hi == 0.
  alignas(64) float scores[kPanelRows * kScoreStride];
};

/// Computes the scores of a panel: score(row, n_rows, lo, hi, scores) for each tile and the keys that its rows see.
template <typename Score>
HWY_INLINE void score_panel(Panel& panel, Score score) {
  for (size_t r = 0, n; r < panel.n_rows; r += n) {
    n = tile_rows(panel.n_rows - r);
    size_t lo = kScoreStride, hi = 0;
    for (size_t i = r; i < r + n; ++i) {
      if (panel.lo[i] == panel.hi[i]) continue;
      lo = std::min(lo, panel.lo[i]);
      hi = std::max(hi, panel.hi[i]);
    }
    if (lo < hi) score(r, n, lo, hi, panel.scores + r * kScoreStride);
  }
}

/// Adds the weighted values of a panel. Keys that only some rows of a tile see are added row by row, before and after the
/// common ones, so that a value never reaches a row that may not see it (0 * NaN is NaN) and every row keeps its order.
template <typename Source>
void add_values(const Panel& panel, const float* keep, const ValueRows& values, size_t value_dim, float* out,
                size_t out_stride) {
  for (size_t r = 0, n; r < panel.n_rows; r += n) {
    n = tile_rows(panel.n_rows - r);
    const size_t lo = *std::max_element(panel.lo + r, panel.lo + r + n);
    const size_t hi = *std::min_element(panel.hi + r, panel.hi + r + n);
    const bool same = lo == *std::min_element(panel.lo + r, panel.lo + r + n) &&
                      hi == *std::max_element(panel.hi + r, panel.hi + r + n);
    const ValueTile tile = {panel.scores + r * kScoreStride, values, value_dim, out + r * out_stride, out_stride};
    if (same) {
      if (lo < hi) value_tile<Source>(n, tile, lo, hi, keep + r);
      continue;
    }
    const bool common = lo < hi;
    for (size_t i = 0; i < n; ++i) {
      const size_t row_lo = panel.lo[r + i], row_hi = panel.hi[r + i];
      if (row_lo < row_hi) value_tile<Source>(1, tile.row(i), row_lo, common ? lo : row_hi, keep + r + i);
    }
    if (!common) continue;
    static constexpr float kOnes[kTileRows] = {1, 1, 1, 1, 1, 1};
    value_tile<Source>(n, tile, lo, hi, kOnes);
    for (size_t i = 0; i < n; ++i) {
      if (hi < panel.hi[r + i]) value_tile<Source>(1, tile.row(i), hi, panel.hi[r + i], kOnes);
    }
  }
}

/// Passes rows [row0, row0 + n_rows) over one block, with score(row, n_rows, lo, hi, scores) for the scores of a tile.
template <typename Source, typename Score>
HWY_INLINE void attend_block(const AttentionQueries& queries, const AttentionKeys& keys, const AttentionTriple& result,
                             size_t row0, size_t n_rows, size_t block, size_t block_size, const ValueRows& values,
                             Score score) {
  Panel panel;
  float keep[kPanelRows];
  for (size_t p = 0; p < n_rows; p += panel.n_rows) {
    panel.n_rows = std::min(kPanelRows, n_rows - p);
    const size_t first_row = row0 + p;
    for (size_t i = 0; i < panel.n_rows; ++i) {
      const size_t lo = std::max<size_t>(keys.first[first_row + i], block);
      const size_t hi = std::min<size_t>(keys.last[first_row + i], block + block_size);
      panel.lo[i] = lo < hi ? lo - block : 0;
      panel.hi[i] = lo < hi ? hi - block : 0;
    }
    score_panel(panel, [&](size_t r, size_t n, size_t lo, size_t hi, float* scores) HWY_ATTR {
      score(first_row + r, n, lo, hi, scores);
    });
    softmax_rows(queries, panel.scores, panel.n_rows, panel.lo, panel.hi, result.max + first_row, result.sum + first_row, keep);
    add_values<Source>(panel, keep, values, queries.value_dim, result.out + first_row * result.out_stride,
                       result.out_stride);
  }
}

struct Range {
  size_t lo, hi;
};

/// The keys of [begin, end) that any of the rows sees, as one range.
Range visible(const AttentionKeys& keys, size_t row0, size_t n_rows, size_t begin, size_t end) {
  Range range = {end, begin};
  for (size_t i = row0; i < row0 + n_rows; ++i) {
    const size_t lo = std::max<size_t>(keys.first[i], begin), hi = std::min<size_t>(keys.last[i], end);
    if (lo >= hi) continue;
    range = {std::min(range.lo, lo), std::max(range.hi, hi)};
  }
  return range;
}

/// Calls body(block, lo, hi) for every block that one of the rows sees, in order; lo and hi from the block's start.
template <typename Body>
HWY_INLINE void for_each_block(const AttentionQueries& queries, const AttentionKeys& keys, size_t row0, size_t n_rows,
                               Body body) {
  const size_t size = block_keys(queries.head_dim, queries.value_dim);
  const Range run = visible(keys, row0, n_rows, 0, std::numeric_limits<uint32_t>::max());
  for (size_t block = run.lo / size * size; block < run.hi; block += size) {
    const Range seen = visible(keys, row0, n_rows, block, block + size);
    if (seen.lo < seen.hi) body(block, size, seen.lo - block, seen.hi - block);
  }
}

/// Many rows: keys and values of a block are converted once, to scratch.
template <typename Source>
void attend_converted(const AttentionQueries& queries, const AttentionKeys& keys, const AttentionTriple& result,
                      size_t row0, size_t n_rows) {
  alignas(64) float keys_t[kScratchFloats];
  alignas(64) float converted[kScratchFloats];
  for_each_block(queries, keys, row0, n_rows, [&](size_t block, size_t size, size_t block_lo, size_t block_hi) HWY_ATTR {
    const ValueRows values = convert_values<Source>({keys.v + block * keys.v_stride_bytes, keys.v_stride_bytes}, block_lo,
                                                    block_hi, queries.value_dim, converted);
    transpose_keys<Source>(keys.k + block * keys.k_stride_bytes, keys.k_stride_bytes, block_lo, block_hi, queries.head_dim,
                           keys_t, size);
    const auto score = [&](size_t row, size_t n, size_t lo, size_t hi, float* scores) HWY_ATTR {
      const ScoreTile tile = {queries.q + row * queries.q_stride, queries.q_stride, queries.head_dim, keys_t, size, scores};
      score_tile(n, tile, lo / kLanes * kLanes, hi);
    };
    attend_block<F32Source>(queries, keys, result, row0, n_rows, block, size, values, score);
  });
}

/// Few rows: keys and values are converted in registers, so memory is the limit.
template <typename Source>
void attend_stored(const AttentionQueries& queries, const AttentionKeys& keys, const AttentionTriple& result) {
  alignas(64) float q[kStoredRows * kMaxAttentionDim];
  const size_t q_stride = (queries.head_dim + kLanes - 1) / kLanes * kLanes;
  for (size_t i = 0; i < queries.n_rows; ++i) {
    std::copy_n(queries.q + i * queries.q_stride, queries.head_dim, q + i * q_stride);
    std::fill_n(q + i * q_stride + queries.head_dim, q_stride - queries.head_dim, -0.0f);
  }
  size_t n_keys = 0;
  for (size_t i = 0; i < queries.n_rows; ++i) n_keys = std::max<size_t>(n_keys, keys.last[i]);
  if (n_keys == 0) return;
  const RowsAhead keys_ahead(keys.k, n_keys, queries.head_dim * Source::kBytes, keys.k_stride_bytes, keys.next_k);
  const RowsAhead values_ahead(keys.v, n_keys, queries.value_dim * Source::kBytes, keys.v_stride_bytes, keys.next_v);
  for_each_block(queries, keys, 0, queries.n_rows, [&](size_t block, size_t size, size_t, size_t) HWY_ATTR {
    const ValueRows values = {keys.v + block * keys.v_stride_bytes, keys.v_stride_bytes, values_ahead};
    const auto score = [&](size_t row, size_t n, size_t lo, size_t hi, float* scores) HWY_ATTR {
      const StoredScores tile = {q + row * q_stride, q_stride, queries.head_dim, keys.k + block * keys.k_stride_bytes,
                                 keys.k_stride_bytes, scores, keys_ahead};
      stored_scores<Source>(n, tile, lo, hi);
    };
    attend_block<Source>(queries, keys, result, 0, queries.n_rows, block, size, values, score);
  });
}

template <typename Source>
void attend_run(const AttentionQueries& queries, const AttentionKeys& keys, const AttentionTriple& result) {
  if (queries.n_rows <= kStoredRows) return attend_stored<Source>(queries, keys, result);
  // Rows of one pass: their queries and outputs stay in L2 while the blocks of the run go by.
  const size_t floats_of_row = queries.head_dim + queries.value_dim;
  const size_t pass_rows = std::max<size_t>(1, 49152 / kPanelRows / std::max<size_t>(1, floats_of_row)) * kPanelRows;
  for (size_t row0 = 0; row0 < queries.n_rows; row0 += pass_rows) {
    attend_converted<Source>(queries, keys, result, row0, std::min(pass_rows, queries.n_rows - row0));
  }
}

void attend(const AttentionQueries& queries, const AttentionKeys& keys, const AttentionTriple& result) {
  switch (keys.dtype) {
    case DType::kF16:
      return attend_run<F16Source>(queries, keys, result);
    case DType::kBF16:
      return attend_run<BF16Source>(queries, keys, result);
    default:
      return attend_run<F32Source>(queries, keys, result);
  }
}

template <typename Source>
void score_all(const float* q, size_t q_stride, size_t n_rows, const StoredRows& keys, size_t n_keys, size_t dim,
               float* scores, size_t scores_stride) {
  alignas(64) float padded[kTileRows * kMaxAttentionDim];
  alignas(64) float block[kTileRows * kScoreStride];
  const size_t stride = (dim + kLanes - 1) / kLanes * kLanes;
  // What may lie in the second cache is not asked for ahead.
  const RowsAhead ahead = n_keys * keys.stride_bytes < kSecondCacheBytes
                              ? RowsAhead()
                              : RowsAhead(keys.data, n_keys, dim * Source::kBytes, keys.stride_bytes, nullptr);
  for (size_t row = 0, n; row < n_rows; row += n) {
    n = tile_rows(n_rows - row);
    for (size_t r = 0; r < n; ++r) {
      std::copy_n(q + (row + r) * q_stride, dim, padded + r * stride);
      std::fill_n(padded + r * stride + dim, stride - dim, -0.0f);
    }
    for (size_t j = 0; j < n_keys; j += kScoreStride) {
      const size_t here = std::min(kScoreStride, n_keys - j);
      stored_scores<Source>(n, {padded, stride, dim, keys.data + j * keys.stride_bytes, keys.stride_bytes, block, ahead}, 0,
                            here);
      for (size_t r = 0; r < n; ++r) std::copy_n(block + r * kScoreStride, here, scores + (row + r) * scores_stride + j);
    }
  }
}

void score_stored(const float* q, size_t q_stride, size_t n_rows, const StoredRows& keys, size_t n_keys, size_t dim,
                float* scores, size_t scores_stride) {
  (keys.dtype == DType::kF32 ? score_all<F32Source> : score_all<F16Source>)(q, q_stride, n_rows, keys, n_keys, dim, scores,
                                                                             scores_stride);
}

template <typename Source>
void combine_all(const float* weights, size_t weights_stride, size_t n_rows, const StoredRows& values, size_t n_values,
                 size_t dim, float* out, size_t out_stride) {
  static constexpr float kOnes[kTileRows] = {1, 1, 1, 1, 1, 1};
  alignas(64) float block[kTileRows * kScoreStride];
  for (size_t j = 0; j < n_values; j += kScoreStride) {
    const size_t here = std::min(kScoreStride, n_values - j);
    for (size_t row = 0, n; row < n_rows; row += n) {
      n = tile_rows(n_rows - row);
      for (size_t r = 0; r < n; ++r) std::copy_n(weights + (row + r) * weights_stride + j, here, block + r * kScoreStride);
      const ValueRows rows = {values.data + j * values.stride_bytes, values.stride_bytes};
      value_tile<Source>(n, {block, rows, dim, out + row * out_stride, out_stride}, 0, here, kOnes);
    }
  }
}

void combine_stored(const float* weights, size_t weights_stride, size_t n_rows, const StoredRows& values, size_t n_values,
                  size_t dim, float* out, size_t out_stride) {
  (values.dtype == DType::kF32 ? combine_all<F32Source> : combine_all<F16Source>)(weights, weights_stride, n_rows, values,
                                                                                  n_values, dim, out, out_stride);
}

}  // namespace
}  // namespace mneme::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme::kernels {

SoftmaxRowsFn simd_softmax_rows(Target target) {
#if HWY_TARGETS & HWY_AVX2
  if (target == Target::kAvx2) return N_AVX2::softmax_rows;
#endif
#if HWY_TARGETS & HWY_AVX3
  if (target == Target::kAvx512) return N_AVX3::softmax_rows;
#endif
#if HWY_TARGETS & HWY_NEON
  if (target == Target::kNeon) return N_NEON::softmax_rows;
#endif
  return nullptr;
}

AttendFn simd_attend(Target target) {
#if HWY_TARGETS & HWY_AVX2
  if (target == Target::kAvx2) return N_AVX2::attend;
#endif
#if HWY_TARGETS & HWY_AVX3
  if (target == Target::kAvx512) return N_AVX3::attend;
#endif
#if HWY_TARGETS & HWY_NEON
  if (target == Target::kNeon) return N_NEON::attend;
#endif
  return nullptr;
}

ScoreRowsFn simd_score_rows(Target target) {
#if HWY_TARGETS & HWY_AVX2
  if (target == Target::kAvx2) return N_AVX2::score_stored;
#endif
#if HWY_TARGETS & HWY_AVX3
  if (target == Target::kAvx512) return N_AVX3::score_stored;
#endif
#if HWY_TARGETS & HWY_NEON
  if (target == Target::kNeon) return N_NEON::score_stored;
#endif
  return nullptr;
}

CombineRowsFn simd_combine_rows(Target target) {
#if HWY_TARGETS & HWY_AVX2
  if (target == Target::kAvx2) return N_AVX2::combine_stored;
#endif
#if HWY_TARGETS & HWY_AVX3
  if (target == Target::kAvx512) return N_AVX3::combine_stored;
#endif
#if HWY_TARGETS & HWY_NEON
  if (target == Target::kNeon) return N_NEON::combine_stored;
#endif
  return nullptr;
}

}  // namespace mneme::kernels
#endif  // HWY_ONCE
