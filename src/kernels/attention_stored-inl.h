// Scores straight from stored keys, for decoding: few rows, every key used once. Compiled once per target, so the guard
// toggles.
#if defined(MNEME_KERNELS_ATTENTION_STORED_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MNEME_KERNELS_ATTENTION_STORED_INL_H
#undef MNEME_KERNELS_ATTENTION_STORED_INL_H
#else
#define MNEME_KERNELS_ATTENTION_STORED_INL_H
#endif

#include <algorithm>

#include "kernels/attention_tiles-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mneme::kernels::HWY_NAMESPACE {

/// 128-bit blocks of a vector: it holds four dimensions of as many keys.
constexpr size_t kBlocks = kLanes / 4;

/// Transposes kBlocks vectors of stored elements, kBlocks groups of four dimensions each, and widens: out[i] has group i of
/// every vector.
template <typename Source>
HWY_INLINE void load_quads(const Vec (&keys)[kBlocks], Vec (&out)[kBlocks]) {
#if HWY_TARGET == HWY_AVX3
  const __m512 a = keys[0].raw, b = keys[1].raw, c = keys[2].raw, e = keys[3].raw;
  const __m512 ab_low = _mm512_shuffle_f32x4(a, b, 0x44), ab_high = _mm512_shuffle_f32x4(a, b, 0xEE);
  const __m512 ce_low = _mm512_shuffle_f32x4(c, e, 0x44), ce_high = _mm512_shuffle_f32x4(c, e, 0xEE);
  out[0] = Vec{_mm512_shuffle_f32x4(ab_low, ce_low, 0x88)};
  out[1] = Vec{_mm512_shuffle_f32x4(ab_low, ce_low, 0xDD)};
  out[2] = Vec{_mm512_shuffle_f32x4(ab_high, ce_high, 0x88)};
  out[3] = Vec{_mm512_shuffle_f32x4(ab_high, ce_high, 0xDD)};
#elif HWY_TARGET == HWY_AVX2
  out[0] = hn::ConcatLowerLower(F32(), keys[1], keys[0]);
  out[1] = hn::ConcatUpperUpper(F32(), keys[1], keys[0]);
#else
  out[0] = keys[0];
#endif
}

template <typename Source>
HWY_INLINE void load_quads(const hn::Vec<U16> (&keys)[kBlocks], Vec (&out)[kBlocks]) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  const U16 d;
  const hn::Repartition<uint64_t, U16> d64;
  const auto a = hn::BitCast(d64, keys[0]), b = hn::BitCast(d64, keys[1]);
  const auto ab_even = hn::InterleaveLower(d64, a, b), ab_odd = hn::InterleaveUpper(d64, a, b);
#if HWY_TARGET == HWY_AVX3
  const auto c = hn::BitCast(d64, keys[2]), e = hn::BitCast(d64, keys[3]);
  const auto ce_even = hn::InterleaveLower(d64, c, e), ce_odd = hn::InterleaveUpper(d64, c, e);
  out[0] = Source::widen(hn::BitCast(d, hn::ConcatLowerLower(d64, ce_even, ab_even)));
  out[1] = Source::widen(hn::BitCast(d, hn::ConcatLowerLower(d64, ce_odd, ab_odd)));
  out[2] = Source::widen(hn::BitCast(d, hn::ConcatUpperUpper(d64, ce_even, ab_even)));
  out[3] = Source::widen(hn::BitCast(d, hn::ConcatUpperUpper(d64, ce_odd, ab_odd)));
#else
  out[0] = Source::widen(hn::BitCast(d, ab_even));
  out[1] = Source::widen(hn::BitCast(d, ab_odd));
#endif
#else
  out[0] = Source::widen(keys[0]);
#endif
}

/// Operands of stored_scores(). `q` are rows of `q_stride` floats, head_dim padded with -0 to a multiple of kLanes: the
/// padding's products are -0, which change no sum.
struct StoredScores {
  const float* q;
  size_t q_stride, head_dim;
  const std::byte* keys;
  size_t stride_bytes;
  float* scores;
  RowsAhead ahead;
};

/// One step of the chains: kLanes dimensions from c, or the rest of them with kPart, of the keys j + residue + 4 b.
template <typename Source, size_t kRows, size_t kResidues, typename LoadKey>
HWY_INLINE void chain_step(const float* q, size_t q_stride, Vec (&sums)[kRows][kResidues], LoadKey load_key) {
  const F32 d;
  Vec quads[kResidues][kBlocks];
  MNEME_UNROLL
  for (size_t i = 0; i < kResidues; ++i) {
    decltype(load_key(0, 0)) stored[kBlocks];
    MNEME_UNROLL
    for (size_t b = 0; b < kBlocks; ++b) stored[b] = load_key(i, b);
    load_quads<Source>(stored, quads[i]);
  }
  MNEME_UNROLL
  for (size_t g = 0; g < kBlocks; ++g) {
    MNEME_UNROLL
    for (size_t r = 0; r < kRows; ++r) {
      const Vec x = hn::LoadDup128(d, q + r * q_stride + 4 * g);
      MNEME_UNROLL
      for (size_t i = 0; i < kResidues; ++i) sums[r][i] = hn::MulAdd(x, quads[i][g], sums[r][i]);
    }
  }
}

/// The chains of keys j + residue + i + 4 b, i < kResidues, b < kBlocks. Keys outside [lo, hi) count as zeros.
template <typename Source, size_t kRows, size_t kResidues>
HWY_INLINE void stored_chains(const StoredScores& t, size_t j, size_t residue, size_t lo, size_t hi,
                              Vec (&chains)[kRows][4]) {
  Vec sums[kRows][kResidues];
  for (auto& row : sums) {
    for (Vec& sum : row) sum = hn::Zero(F32());
  }
  const size_t stride = t.stride_bytes;
  const std::byte* const first = t.keys + (j + residue) * stride;
  const std::byte* key = first;
  size_t c = 0;
  if (HWY_LIKELY(lo <= j && j + kLanes <= hi)) {
    for (; c + kLanes <= t.head_dim; c += kLanes, key += kLanes * Source::kBytes) {
      if (t.ahead.end != nullptr && c * Source::kBytes % 64 == 0) {
        MNEME_UNROLL
        for (size_t i = 0; i < kResidues; ++i) {
          MNEME_UNROLL
          for (size_t b = 0; b < kBlocks; ++b) t.ahead.ask(first + (i + 4 * b) * stride, c * Source::kBytes);
        }
      }
      chain_step<Source, kRows, kResidues>(t.q + c, t.q_stride, sums, [key, stride](size_t i, size_t b) HWY_ATTR {
        return Source::load_stored(key + (i + 4 * b) * stride);
      });
    }
  }
  for (; c < t.head_dim; c += kLanes, key += kLanes * Source::kBytes) {
    const size_t n_dims = std::min(kLanes, t.head_dim - c);
    chain_step<Source, kRows, kResidues>(t.q + c, t.q_stride, sums, [&](size_t i, size_t b) HWY_ATTR {
      const size_t at = j + residue + i + 4 * b;
      return load_stored_part<Source>(key + (i + 4 * b) * stride, lo <= at && at < hi ? n_dims : 0);
    });
  }
  MNEME_UNROLL
  for (size_t r = 0; r < kRows; ++r) {
    MNEME_UNROLL
    for (size_t i = 0; i < kResidues; ++i) chains[r][residue + i] = sums[r][i];
  }
}

/// Four vectors of chains, one a residue, to kLanes scores in the order of keys.
HWY_INLINE Vec sum_chains(Vec a, Vec b, Vec c, Vec e) {
  const F32 d;
  const hn::Repartition<uint64_t, F32> d64;
  const auto ab_low = hn::BitCast(d64, hn::InterleaveLower(d, a, b)), ab_high = hn::BitCast(d64, hn::InterleaveUpper(d, a, b));
  const auto ce_low = hn::BitCast(d64, hn::InterleaveLower(d, c, e)), ce_high = hn::BitCast(d64, hn::InterleaveUpper(d, c, e));
  Vec sum = hn::BitCast(d, hn::InterleaveLower(d64, ab_low, ce_low));
  sum = hn::Add(sum, hn::BitCast(d, hn::InterleaveUpper(d64, ab_low, ce_low)));
  sum = hn::Add(sum, hn::BitCast(d, hn::InterleaveLower(d64, ab_high, ce_high)));
  return hn::Add(sum, hn::BitCast(d, hn::InterleaveUpper(d64, ab_high, ce_high)));
}

template <typename Source, size_t kRows>
HWY_NOINLINE void stored_score_rows(const StoredScores& t, size_t lo, size_t hi) {
  // Enough chains to hide the latency, few enough for the registers.
  constexpr size_t kResidues = kRows <= 2 ? 4 : kTileVectors == 2 && kRows > 4 ? 1 : 2;
  for (size_t j = lo / kLanes * kLanes; j < hi; j += kLanes) {
    Vec chains[kRows][4];
    for (size_t i = 0; i < 4; i += kResidues) stored_chains<Source, kRows, kResidues>(t, j, i, lo, hi, chains);
    for (size_t r = 0; r < kRows; ++r) {
      const Vec sum = sum_chains(chains[r][0], chains[r][1], chains[r][2], chains[r][3]);
      hn::Store(sum, F32(), t.scores + r * kScoreStride + j);
    }
  }
}

/// Scores of `n_rows` <= kTileRows rows with keys [lo, hi) of a block, bit for bit those of score_tile().
template <typename Source>
HWY_INLINE void stored_scores(size_t n_rows, const StoredScores& t, size_t lo, size_t hi) {
  switch (n_rows) {
    case 1:
      return stored_score_rows<Source, 1>(t, lo, hi);
    case 2:
      return stored_score_rows<Source, 2>(t, lo, hi);
    case 3:
      return stored_score_rows<Source, 3>(t, lo, hi);
    case 4:
      return stored_score_rows<Source, 4>(t, lo, hi);
    case 5:
      return stored_score_rows<Source, 5>(t, lo, hi);
    default:
      return stored_score_rows<Source, 6>(t, lo, hi);
  }
}

}  // namespace mneme::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // MNEME_KERNELS_ATTENTION_STORED_INL_H
