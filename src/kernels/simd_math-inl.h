// exp, tanh and what is made of them on vectors of f32; compiled once per target, so the guard toggles.
#if defined(MNEME_KERNELS_SIMD_MATH_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MNEME_KERNELS_SIMD_MATH_INL_H
#undef MNEME_KERNELS_SIMD_MATH_INL_H
#else
#define MNEME_KERNELS_SIMD_MATH_INL_H
#endif

#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mneme::kernels::HWY_NAMESPACE {

/// The larger and the smaller of x and a bound, NaN when x is. Highway's Max and Min leave that open: x86 returns the
/// second operand, NEON the one that is a number.
HWY_INLINE Vec at_least(Vec x, float bound) {
#if HWY_TARGET == HWY_NEON
  return Vec(vmaxq_f32(x.raw, vdupq_n_f32(bound)));
#else
  return hn::Max(hn::Set(F32(), bound), x);
#endif
}

HWY_INLINE Vec at_most(Vec x, float bound) {
#if HWY_TARGET == HWY_NEON
  return Vec(vminq_f32(x.raw, vdupq_n_f32(bound)));
#else
  return hn::Min(hn::Set(F32(), bound), x);
#endif
}

/// x = n ln 2 + r with |r| <= ln(2) / 2, and m = e^r - 1.
///
/// m = r + r^2 q(r), where q interpolates (e^r - 1 - r) / r^2 at five Chebyshev points of the interval: 1.1e-8 relative
/// to e^r before rounding.
struct ReducedExp {
  Vec shifted;  ///< n + 1.5 * 2^23: the low bits are n as an integer.
  Vec n;
  Vec m;
};

HWY_INLINE ReducedExp reduce_exp(Vec x) {
  const F32 d;
  const Vec magic = hn::Set(d, 12582912.0f);  // adding it rounds to the nearest integer
  const Vec shifted = hn::MulAdd(x, hn::Set(d, 1.44269504f), magic);
  const Vec n = hn::Sub(shifted, magic);
  Vec r = hn::NegMulAdd(n, hn::Set(d, 0.693147182f), x);  // ln 2 in two parts, the second the error of the first
  r = hn::NegMulAdd(n, hn::Set(d, -1.90465421e-9f), r);
  Vec q = hn::MulAdd(hn::Set(d, 1.392625083e-3f), r, hn::Set(d, 8.363232884e-3f));
  q = hn::MulAdd(q, r, hn::Set(d, 4.166655421e-2f));
  q = hn::MulAdd(q, r, hn::Set(d, 1.666657667e-1f));
  q = hn::MulAdd(q, r, hn::Set(d, 0.5f));
  return {shifted, n, hn::MulAdd(q, hn::Mul(r, r), r)};
}

/// 2^n for -126 <= n <= 127 from ReducedExp::shifted.
HWY_INLINE Vec power_of_two(Vec shifted) {
  const U32 du;
  return hn::BitCast(F32(), hn::Add(hn::ShiftLeft<23>(hn::BitCast(du, shifted)), hn::Set(du, 127u << 23)));
}

/// e^x, 2 ulp (relative 2.4e-7) while the result is a normal number; overflows to infinity, underflows through
/// subnormals to 0, keeps NaN.
HWY_INLINE Vec exp(Vec x) {
  const F32 d;
  const ReducedExp e = reduce_exp(at_most(at_least(x, -105.0f), 89.5f));
  const Vec p = hn::Add(e.m, hn::Set(d, 1.0f));
#if HWY_TARGET == HWY_AVX3
  return Vec{_mm512_scalef_ps(p.raw, e.n.raw)};
#else
  // 2^n may be no float, but the halves of n are exponents of floats.
  const I32 di;
  const auto n = hn::Sub(hn::BitCast(di, e.shifted), hn::Set(di, 0x4B400000));
  const auto half = hn::ShiftRight<1>(n);
  const auto power = [&](auto k) HWY_ATTR {
    return hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(k, hn::Set(di, 127))));
  };
  return hn::Mul(hn::Mul(p, power(half)), power(hn::Sub(n, half)));
#endif
}

/// e^x for x <= 0 or NaN, 2 ulp; results below 2^-126 become 0 or, where that costs nothing, stay subnormal.
HWY_INLINE Vec exp_of_negative(Vec x) {
#if HWY_TARGET == HWY_AVX3
  const F32 d;
  const ReducedExp e = reduce_exp(at_least(x, -105.0f));
  return Vec{_mm512_scalef_ps(hn::Add(e.m, hn::Set(d, 1.0f)).raw, e.n.raw)};
#else
  const F32 d;
  constexpr float kLowest = -87.33f;
  const ReducedExp e = reduce_exp(at_least(x, kLowest));
  const Vec y = hn::Mul(hn::Add(e.m, hn::Set(d, 1.0f)), power_of_two(e.shifted));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, kLowest)), y);
#endif
}

/// tanh x, 4 ulp (relative 5e-7), also next to 0, since it is a quotient of e^2x - 1 without cancellation.
HWY_INLINE Vec tanh(Vec x) {
  const F32 d;
  const Vec a = hn::Abs(x);
  const ReducedExp e = reduce_exp(at_most(hn::Add(a, a), 20.0f));
  const Vec power = power_of_two(e.shifted);
  const Vec m = hn::MulAdd(power, e.m, hn::Sub(power, hn::Set(d, 1.0f)));  // e^2a - 1
  return hn::CopySign(hn::Div(m, hn::Add(m, hn::Set(d, 2.0f))), x);
}

/// x / (1 + e^-x), relative 5e-7 while e^-x is finite, then 0.
HWY_INLINE Vec silu(Vec x) {
  const F32 d;
  return hn::Div(x, hn::Add(hn::Set(d, 1.0f), exp(hn::Neg(x))));
}

/// 0.5 x (1 + tanh u) with u = sqrt(2 / pi) (x + 0.044715 x^3), written x / (1 + e^-2u) so that the negative side does not
/// cancel. Relative 5e-7 + 2.4e-7 |u|: the second part is the rounding of u itself.
HWY_INLINE Vec gelu(Vec x) {
  const F32 d;
  constexpr float kTwiceSqrt2OverPi = 1.59576912f;
  const Vec inner = hn::MulAdd(hn::Mul(x, x), hn::Set(d, 0.044715f * kTwiceSqrt2OverPi), hn::Set(d, kTwiceSqrt2OverPi));
  return hn::Div(x, hn::Add(hn::Set(d, 1.0f), exp(hn::Neg(hn::Mul(x, inner)))));
}

}  // namespace mneme::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // MNEME_KERNELS_SIMD_MATH_INL_H
