// Online softmax of rows of scores. Compiled once per target, so the guard toggles.
#if defined(MNEME_KERNELS_ATTENTION_SOFTMAX_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MNEME_KERNELS_ATTENTION_SOFTMAX_INL_H
#undef MNEME_KERNELS_ATTENTION_SOFTMAX_INL_H
#else
#define MNEME_KERNELS_ATTENTION_SOFTMAX_INL_H
#endif

#include <limits>

#include "kernels/attention.h"
#include "kernels/attention_tiles-inl.h"
#include "kernels/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mneme::kernels::HWY_NAMESPACE {

/// One row, see SoftmaxRowsFn. kFull: all keys of a block, so that nothing is masked.
template <bool kFull>
HWY_INLINE float softmax_row(const AttentionQueries& queries, float* scores, size_t lo, size_t hi, float& max, float& sum) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  const F32 d;
  if constexpr (kFull) {
    lo = 0;
    hi = kScoreStride;
  }
  const size_t begin = lo / kLanes * kLanes;
  const Vec scale = hn::Set(d, queries.scale);
  const Vec from = hn::Set(d, static_cast<float>(lo)), to = hn::Set(d, static_cast<float>(hi));
  Vec largest = hn::Set(d, max);
  for (size_t j = begin; j < hi; j += kLanes) {
    Vec s = hn::Mul(hn::Load(d, scores + j), scale);
    if (queries.softcap > 0) {
      const Vec cap = hn::Set(d, queries.softcap);
      s = hn::Mul(cap, HWY_NAMESPACE::tanh(hn::Div(s, cap)));
    }
    if constexpr (!kFull) {
      const Vec index = hn::Iota(d, static_cast<float>(j));
      s = hn::IfThenElse(hn::And(hn::Ge(index, from), hn::Lt(index, to)), s, hn::Set(d, kNothing));
    }
    largest = hn::Max(largest, s);
    hn::Store(s, d, scores + j);
  }
  largest = hn::MaxOfLanes(d, largest);
  // Before the first finite score the maximum is -inf; measured from 0 instead, the weights are 0 and not NaN.
  const Vec base = hn::IfThenZeroElse(hn::Eq(largest, hn::Set(d, kNothing)), largest);
  Vec total = hn::Zero(d);
  for (size_t j = begin; j < hi; j += kLanes) {
    const Vec weight = exp_of_negative(hn::Sub(hn::Load(d, scores + j), base));
    total = hn::Add(total, weight);
    hn::Store(weight, d, scores + j);
  }
  const float keep = hn::GetLane(exp_of_negative(hn::Sub(hn::Set(d, max), base)));
  max = hn::GetLane(largest);
  sum = sum * keep + hn::GetLane(hn::SumOfLanes(d, total));
  return keep;
}

#if HWY_TARGET == HWY_AVX3

/// Reduces four vectors to one that has the result of vector i in all lanes of its 128-bit block i; op(a, b) is applied in
/// the order of Highway's reductions.
template <typename Op>
HWY_INLINE Vec reduce_four(const Vec (&v)[4], Op op) {
  const __m512 a = v[0].raw, b = v[1].raw, c = v[2].raw, e = v[3].raw;
  const Vec ab = op(Vec{_mm512_shuffle_f32x4(a, b, 0x44)}, Vec{_mm512_shuffle_f32x4(a, b, 0xEE)});
  const Vec ce = op(Vec{_mm512_shuffle_f32x4(c, e, 0x44)}, Vec{_mm512_shuffle_f32x4(c, e, 0xEE)});
  Vec all = op(Vec{_mm512_shuffle_f32x4(ab.raw, ce.raw, 0x88)}, Vec{_mm512_shuffle_f32x4(ab.raw, ce.raw, 0xDD)});
  all = op(all, Vec{_mm512_permute_ps(all.raw, 0x4E)});
  return op(all, Vec{_mm512_permute_ps(all.raw, 0xB1)});
}

/// Four rows of scores [4, kScoreStride], all keys of a block, no softcap: bit for bit softmax_row<true>(). Their reductions
/// share instructions, which are half the work of a row that goes alone.
HWY_NOINLINE void softmax_four(float scale, float* scores, float* max, float* sum, float* keep) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  constexpr size_t kVectors = kScoreStride / kLanes;
  const F32 d;
  const __m512i spread = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  const auto load_rows = [spread](const float* from) HWY_ATTR {
    return Vec{_mm512_permutexvar_ps(spread, _mm512_castps128_ps512(_mm_loadu_ps(from)))};
  };
  const auto store_rows = [](Vec v, float* to) HWY_ATTR {
    const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm_storeu_ps(to, _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, v.raw)));
  };
  Vec s[4][kVectors], largest[4], totals[4];
  MNEME_UNROLL
  for (size_t r = 0; r < 4; ++r) {
    MNEME_UNROLL
    for (size_t j = 0; j < kVectors; ++j) {
      s[r][j] = hn::Mul(hn::Load(d, scores + r * kScoreStride + j * kLanes), hn::Set(d, scale));
      largest[r] = j == 0 ? s[r][0] : hn::Max(largest[r], s[r][j]);
    }
  }
  const auto larger = [](Vec a, Vec b) HWY_ATTR { return hn::Max(a, b); };
  const auto add = [](Vec a, Vec b) HWY_ATTR { return hn::Add(a, b); };
  const Vec before = load_rows(max);
  const Vec now = hn::Max(before, reduce_four(largest, larger));
  const Vec base = hn::IfThenZeroElse(hn::Eq(now, hn::Set(d, kNothing)), now);
  const Vec bases[4] = {
      Vec{_mm512_shuffle_f32x4(base.raw, base.raw, 0x00)}, Vec{_mm512_shuffle_f32x4(base.raw, base.raw, 0x55)},
      Vec{_mm512_shuffle_f32x4(base.raw, base.raw, 0xAA)}, Vec{_mm512_shuffle_f32x4(base.raw, base.raw, 0xFF)}};
  MNEME_UNROLL
  for (size_t r = 0; r < 4; ++r) {
    MNEME_UNROLL
    for (size_t j = 0; j < kVectors; ++j) {
      const Vec weight = exp_of_negative(hn::Sub(s[r][j], bases[r]));
      totals[r] = j == 0 ? weight : hn::Add(totals[r], weight);
      hn::Store(weight, d, scores + r * kScoreStride + j * kLanes);
    }
  }
  const Vec kept = exp_of_negative(hn::Sub(before, base));
  store_rows(now, max);
  store_rows(hn::Add(hn::Mul(load_rows(sum), kept), reduce_four(totals, add)), sum);
  store_rows(kept, keep);
}

#endif  // HWY_TARGET == HWY_AVX3

/// See SoftmaxRowsFn.
HWY_NOINLINE void softmax_rows(const AttentionQueries& queries, float* scores, size_t n_rows, const size_t* lo,
                               const size_t* hi, float* max, float* sum, float* keep) {
  for (size_t r = 0; r < n_rows; ++r) {
    const bool full = lo[r] == 0 && hi[r] == kScoreStride;
#if HWY_TARGET == HWY_AVX3
    const auto is_full = [&](size_t i) { return lo[i] == 0 && hi[i] == kScoreStride; };
    if (r + 4 <= n_rows && queries.softcap <= 0 && full && is_full(r + 1) && is_full(r + 2) && is_full(r + 3)) {
      softmax_four(queries.scale, scores + r * kScoreStride, max + r, sum + r, keep + r);
      r += 3;
      continue;
    }
#endif
    float* const row = scores + r * kScoreStride;
    if (lo[r] >= hi[r]) {
      keep[r] = 1;
    } else if (full) {
      keep[r] = softmax_row<true>(queries, row, lo[r], hi[r], max[r], sum[r]);
    } else {
      keep[r] = softmax_row<false>(queries, row, lo[r], hi[r], max[r], sum[r]);
    }
  }
}

}  // namespace mneme::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // MNEME_KERNELS_ATTENTION_SOFTMAX_INL_H
