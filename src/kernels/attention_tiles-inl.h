// Register tiles of attention: transposed keys, scores, weighted values. Compiled once per target, so the guard toggles.
#if defined(MNEME_KERNELS_ATTENTION_TILES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MNEME_KERNELS_ATTENTION_TILES_INL_H
#undef MNEME_KERNELS_ATTENTION_TILES_INL_H
#else
#define MNEME_KERNELS_ATTENTION_TILES_INL_H
#endif

#include <algorithm>

#include "kernels/prefetch.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mneme::kernels::HWY_NAMESPACE {

/// Rows and vectors of the largest tile: their accumulators fill the registers but for the operands.
constexpr size_t kTileRows = 6;
constexpr size_t kTileVectors = HWY_TARGET == HWY_AVX2 ? 2 : 4;
/// Floats between the score rows of a panel: the largest block.
constexpr size_t kScoreStride = 64;

/// Rows of the next tile when `rest` rows remain: six, except that seven and eight are cut in halves.
HWY_INLINE size_t tile_rows(size_t rest) {
  return rest == 7 || rest == 8 ? 4 : std::min(rest, kTileRows);
}

/// Transposes kLanes vectors in place.
HWY_INLINE void transpose(Vec (&rows)[kLanes]) {
  const F32 d;
  const hn::Repartition<uint64_t, F32> d64;
  // 4 x 4 inside the 128-bit blocks.
  for (size_t i = 0; i < kLanes; i += 4) {
    const auto ab_low = hn::BitCast(d64, hn::InterleaveLower(d, rows[i], rows[i + 1]));
    const auto ab_high = hn::BitCast(d64, hn::InterleaveUpper(d, rows[i], rows[i + 1]));
    const auto cd_low = hn::BitCast(d64, hn::InterleaveLower(d, rows[i + 2], rows[i + 3]));
    const auto cd_high = hn::BitCast(d64, hn::InterleaveUpper(d, rows[i + 2], rows[i + 3]));
    rows[i] = hn::BitCast(d, hn::InterleaveLower(d64, ab_low, cd_low));
    rows[i + 1] = hn::BitCast(d, hn::InterleaveUpper(d64, ab_low, cd_low));
    rows[i + 2] = hn::BitCast(d, hn::InterleaveLower(d64, ab_high, cd_high));
    rows[i + 3] = hn::BitCast(d, hn::InterleaveUpper(d64, ab_high, cd_high));
  }
  // Then the blocks themselves.
#if HWY_TARGET == HWY_AVX3
  for (size_t i = 0; i < 4; ++i) {
    const __m512 a = rows[i].raw, b = rows[i + 4].raw, c = rows[i + 8].raw, e = rows[i + 12].raw;
    const __m512 ab_even = _mm512_shuffle_f32x4(a, b, 0x88), ab_odd = _mm512_shuffle_f32x4(a, b, 0xDD);
    const __m512 ce_even = _mm512_shuffle_f32x4(c, e, 0x88), ce_odd = _mm512_shuffle_f32x4(c, e, 0xDD);
    rows[i] = Vec{_mm512_shuffle_f32x4(ab_even, ce_even, 0x88)};
    rows[i + 4] = Vec{_mm512_shuffle_f32x4(ab_odd, ce_odd, 0x88)};
    rows[i + 8] = Vec{_mm512_shuffle_f32x4(ab_even, ce_even, 0xDD)};
    rows[i + 12] = Vec{_mm512_shuffle_f32x4(ab_odd, ce_odd, 0xDD)};
  }
#elif HWY_TARGET == HWY_AVX2
  for (size_t i = 0; i < 4; ++i) {
    const Vec a = rows[i], b = rows[i + 4];
    rows[i] = hn::ConcatLowerLower(d, b, a);
    rows[i + 4] = hn::ConcatUpperUpper(d, b, a);
  }
#endif
}

/// Writes keys [lo, hi) of a block as keys_t[d * key_stride + j]. Only whole vectors of keys that contain one of them are
/// written; the others of such a vector become zeros, since their memory may not be initialised.
template <typename Source>
HWY_NOINLINE void transpose_keys(const std::byte* keys, size_t stride_bytes, size_t lo, size_t hi, size_t head_dim,
                                 float* keys_t, size_t key_stride) {
  const F32 d;
  for (size_t j = lo / kLanes * kLanes; j < hi; j += kLanes) {
    const bool all = lo <= j && j + kLanes <= hi;
    for (size_t c = 0; c < head_dim; c += kLanes) {
      const size_t n_dims = std::min(kLanes, head_dim - c);
      const std::byte* from = keys + j * stride_bytes + c * Source::kBytes;
      Vec rows[kLanes];
      if (all && n_dims == kLanes) {
        for (size_t i = 0; i < kLanes; ++i) rows[i] = Source::load(from + i * stride_bytes);
      } else {
        for (size_t i = 0; i < kLanes; ++i) {
          const bool inside = lo <= j + i && j + i < hi;
          rows[i] = inside ? load_part<Source>(from + i * stride_bytes, n_dims) : hn::Zero(d);
        }
      }
      transpose(rows);
      float* to = keys_t + c * key_stride + j;
      if (n_dims == kLanes) {
        for (size_t i = 0; i < kLanes; ++i) hn::Store(rows[i], d, to + i * key_stride);
      } else {
        for (size_t i = 0; i < n_dims; ++i) hn::Store(rows[i], d, to + i * key_stride);
      }
    }
  }
}

/// Values of a block: row j at data + j * stride_bytes.
struct ValueRows {
  const std::byte* data;
  size_t stride_bytes;
  RowsAhead ahead = {};
};

/// Converts values [lo, hi) of a block to f32 rows of whole vectors at `out` (the row of key 0 is there too).
template <typename Source>
HWY_NOINLINE ValueRows convert_values(const ValueRows& values, size_t lo, size_t hi, size_t value_dim, float* out) {
  const F32 d;
  const size_t stride = (value_dim + kLanes - 1) / kLanes * kLanes;
  for (size_t j = lo; j < hi; ++j) {
    const std::byte* from = values.data + j * values.stride_bytes;
    float* to = out + j * stride;
    size_t c = 0;
    for (; c + kLanes <= value_dim; c += kLanes) hn::Store(Source::load(from + c * Source::kBytes), d, to + c);
    if (c < value_dim) hn::Store(load_part<Source>(from + c * Source::kBytes, value_dim - c), d, to + c);
  }
  return {reinterpret_cast<const std::byte*>(out), stride * sizeof(float)};
}

/// Operands of score_tile(): scores[r * kScoreStride + j] = q[r] . keys_t[:, j]. The dimensions are summed in four chains,
/// d = phase, phase + 4, ..., one after the other, and then the chains in order: what stored_scores() computes from keys
/// whose dimensions lie side by side.
struct ScoreTile {
  const float* q;
  size_t q_stride, head_dim;
  const float* keys_t;
  size_t key_stride;
  float* scores;
};

template <size_t kRows, size_t kVectors>
HWY_INLINE void score_columns(const ScoreTile& t, size_t j) {
  const F32 d;
  for (size_t phase = 0; phase < 4; ++phase) {
    Vec sums[kRows][kVectors];
    for (auto& row : sums) {
      for (Vec& sum : row) sum = hn::Zero(d);
    }
    const float* key = t.keys_t + phase * t.key_stride + j;
    for (size_t c = phase; c < t.head_dim; c += 4, key += 4 * t.key_stride) {
      Vec k[kVectors];
      for (size_t v = 0; v < kVectors; ++v) k[v] = hn::Load(d, key + v * kLanes);
      for (size_t r = 0; r < kRows; ++r) {
        const Vec q = hn::Set(d, t.q[r * t.q_stride + c]);
        for (size_t v = 0; v < kVectors; ++v) sums[r][v] = hn::MulAdd(q, k[v], sums[r][v]);
      }
    }
    for (size_t r = 0; r < kRows; ++r) {
      float* to = t.scores + r * kScoreStride + j;
      for (size_t v = 0; v < kVectors; ++v, to += kLanes) {
        hn::Store(phase == 0 ? sums[r][v] : hn::Add(hn::Load(d, to), sums[r][v]), d, to);
      }
    }
  }
}

template <size_t kRows>
HWY_NOINLINE void score_rows(const ScoreTile& t, size_t begin, size_t end) {
  size_t j = begin;
  for (; j + (kTileVectors - 1) * kLanes < end; j += kTileVectors * kLanes) score_columns<kRows, kTileVectors>(t, j);
  for (; j < end; j += kLanes) score_columns<kRows, 1>(t, j);
}

/// Scores of `n_rows` <= kTileRows rows with the keys of the vectors from `begin` (a multiple of kLanes) that lie before
/// `end`; the last vector is computed whole.
HWY_INLINE void score_tile(size_t n_rows, const ScoreTile& t, size_t begin, size_t end) {
  switch (n_rows) {
    case 1:
      return score_rows<1>(t, begin, end);
    case 2:
      return score_rows<2>(t, begin, end);
    case 3:
      return score_rows<3>(t, begin, end);
    case 4:
      return score_rows<4>(t, begin, end);
    case 5:
      return score_rows<5>(t, begin, end);
    default:
      return score_rows<6>(t, begin, end);
  }
}

/// Operands of value_tile(): out[r] = keep[r] * out[r] + sum over j of weights[r * kScoreStride + j] * values[j].
struct ValueTile {
  const float* weights;
  ValueRows values;
  size_t value_dim;
  float* out;
  size_t out_stride;

  ValueTile row(size_t r) const {
    return {weights + r * kScoreStride, values, value_dim, out + r * out_stride, out_stride};
  }
};

/// Columns [c, c + kVectors * kLanes) of the tile; with kPart only the first value_dim - c of them, kVectors being 1.
template <typename Source, size_t kRows, size_t kVectors, bool kPart = false>
HWY_INLINE void value_columns(const ValueTile& t, size_t begin, size_t end, const float* keep, size_t c) {
  static_assert(!kPart || kVectors == 1);
  const F32 d;
  constexpr size_t kStep = std::max<size_t>(1, 64 / (kLanes * Source::kBytes));  // vectors of a cache line
  const size_t n_part = t.value_dim - c;
  Vec sums[kRows][kVectors];
  for (size_t r = 0; r < kRows; ++r) {
    const float* out = t.out + r * t.out_stride + c;
    for (size_t v = 0; v < kVectors; ++v) {
      const Vec old = kPart ? load_part(out, n_part) : hn::LoadU(d, out + v * kLanes);
      sums[r][v] = hn::Mul(hn::Set(d, keep[r]), old);
    }
  }
  const std::byte* value = t.values.data + begin * t.values.stride_bytes + c * Source::kBytes;
  for (size_t j = begin; j < end; ++j, value += t.values.stride_bytes) {
    Vec x[kVectors];
    if (t.values.ahead.end != nullptr) {
      const std::byte* const row = value - c * Source::kBytes;
      for (size_t v = 0; v < kVectors; v += kStep) t.values.ahead.ask(row, (c + v * kLanes) * Source::kBytes);
    }
    for (size_t v = 0; v < kVectors; ++v) {
      x[v] = kPart ? load_part<Source>(value, n_part) : Source::load(value + v * kLanes * Source::kBytes);
    }
    for (size_t r = 0; r < kRows; ++r) {
      const Vec weight = hn::Set(d, t.weights[r * kScoreStride + j]);
      for (size_t v = 0; v < kVectors; ++v) sums[r][v] = hn::MulAdd(weight, x[v], sums[r][v]);
    }
  }
  for (size_t r = 0; r < kRows; ++r) {
    float* out = t.out + r * t.out_stride + c;
    for (size_t v = 0; v < kVectors; ++v) {
      if constexpr (kPart) {
        store_part(sums[r][v], out, n_part);
      } else {
        hn::StoreU(sums[r][v], d, out + v * kLanes);
      }
    }
  }
}

template <typename Source, size_t kRows>
HWY_NOINLINE void value_rows(const ValueTile& t, size_t begin, size_t end, const float* keep) {
  constexpr size_t kStep = kTileVectors * kLanes;
  size_t c = 0;
  for (; c + kStep <= t.value_dim; c += kStep) value_columns<Source, kRows, kTileVectors>(t, begin, end, keep, c);
  for (; c + kLanes <= t.value_dim; c += kLanes) value_columns<Source, kRows, 1>(t, begin, end, keep, c);
  if (c < t.value_dim) value_columns<Source, kRows, 1, true>(t, begin, end, keep, c);
}

/// Adds the weighted values of keys [begin, end) to `n_rows` <= kTileRows rows.
template <typename Source>
HWY_INLINE void value_tile(size_t n_rows, const ValueTile& t, size_t begin, size_t end, const float* keep) {
  switch (n_rows) {
    case 1:
      return value_rows<Source, 1>(t, begin, end, keep);
    case 2:
      return value_rows<Source, 2>(t, begin, end, keep);
    case 3:
      return value_rows<Source, 3>(t, begin, end, keep);
    case 4:
      return value_rows<Source, 4>(t, begin, end, keep);
    case 5:
      return value_rows<Source, 5>(t, begin, end, keep);
    default:
      return value_rows<Source, 6>(t, begin, end, keep);
  }
}

}  // namespace mneme::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // MNEME_KERNELS_ATTENTION_TILES_INL_H
