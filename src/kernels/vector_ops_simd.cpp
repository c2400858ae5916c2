#include "kernels/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vector_ops_simd.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/simd-inl.h"
#include "kernels/simd_math-inl.h"
#include "kernels/vector_ops_tables.h"

HWY_BEFORE_NAMESPACE();
namespace mneme::kernels::HWY_NAMESPACE {
namespace {

Vec set(float value) {
  return hn::Set(F32(), value);
}

/// y[i] = f(x[i]).
template <typename F>
HWY_INLINE void map(const float* x, size_t n, float* y, F f) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) hn::StoreU(f(hn::LoadU(F32(), x + i)), F32(), y + i);
  if (i < n) store_part(f(load_part(x + i, n - i)), y + i, n - i);
}

/// y[i] = f(a[i], b[i]).
template <typename F>
HWY_INLINE void map(const float* a, const float* b, size_t n, float* y, F f) {
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(f(hn::LoadU(F32(), a + i), hn::LoadU(F32(), b + i)), F32(), y + i);
  }
  if (i < n) store_part(f(load_part(a + i, n - i), load_part(b + i, n - i)), y + i, n - i);
}

/// Sum of f(a[i], b[i]) where f(sum, a, b) adds one vector to its accumulator; four chains hide the latency. Elements
/// behind the end read as zeros, so f must add nothing for them.
template <typename F>
HWY_INLINE float sum(const float* a, const float* b, size_t n, F f) {
  const F32 d;
  Vec s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  size_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    s0 = f(s0, hn::LoadU(d, a + i), hn::LoadU(d, b + i));
    s1 = f(s1, hn::LoadU(d, a + i + kLanes), hn::LoadU(d, b + i + kLanes));
    s2 = f(s2, hn::LoadU(d, a + i + 2 * kLanes), hn::LoadU(d, b + i + 2 * kLanes));
    s3 = f(s3, hn::LoadU(d, a + i + 3 * kLanes), hn::LoadU(d, b + i + 3 * kLanes));
  }
  for (; i + kLanes <= n; i += kLanes) s0 = f(s0, hn::LoadU(d, a + i), hn::LoadU(d, b + i));
  if (i < n) s1 = f(s1, load_part(a + i, n - i), load_part(b + i, n - i));
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
}

float dot(const float* a, const float* b, size_t n) {
  return sum(a, b, n, [](Vec s, Vec x, Vec y) HWY_ATTR { return hn::MulAdd(x, y, s); });
}

void add(const float* a, const float* b, size_t n, float* y) {
  map(a, b, n, y, [](Vec u, Vec v) HWY_ATTR { return hn::Add(u, v); });
}

void multiply(const float* a, const float* b, size_t n, float* y) {
  map(a, b, n, y, [](Vec u, Vec v) HWY_ATTR { return hn::Mul(u, v); });
}

void scale(const float* x, float factor, size_t n, float* y) {
  const Vec f = set(factor);
  map(x, n, y, [f](Vec v) HWY_ATTR { return hn::Mul(f, v); });
}

void add_scaled(const float* x, float factor, size_t n, float* y) {
  const Vec f = set(factor);
  map(x, y, n, y, [f](Vec u, Vec v) HWY_ATTR { return hn::MulAdd(f, u, v); });
}

void rms_norm(const float* x, const float* weight, float eps, size_t n, float* y) {
  const Vec factor = set(1.0f / std::sqrt(dot(x, x, n) / static_cast<float>(n) + eps));
  map(x, weight, n, y, [factor](Vec v, Vec w) HWY_ATTR { return hn::Mul(hn::Mul(v, factor), w); });
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, size_t n, float* y) {
  const F32 d;
  const float count = static_cast<float>(n);
  const float total = sum(x, x, n, [](Vec s, Vec v, Vec) HWY_ATTR { return hn::Add(s, v); });
  const Vec mean = set(total / count);
  // The part behind the last whole vector must not add the square of the mean for lanes that are not there.
  const size_t whole = n / kLanes * kLanes;
  const auto add_square = [mean](Vec s, Vec v, Vec) HWY_ATTR {
    const Vec centred = hn::Sub(v, mean);
    return hn::MulAdd(centred, centred, s);
  };
  float squares = sum(x, x, whole, add_square);
  if (whole < n) {
    const Vec centred = hn::IfThenElseZero(hn::FirstN(d, n - whole), hn::Sub(load_part(x + whole, n - whole), mean));
    squares += hn::GetLane(hn::SumOfLanes(d, hn::Mul(centred, centred)));
  }
  const Vec factor = set(1.0f / std::sqrt(squares / count + eps));
  map(x, weight, n, y, [mean, factor](Vec v, Vec w) HWY_ATTR {
    return hn::Mul(hn::Mul(hn::Sub(v, mean), factor), w);
  });
  if (bias != nullptr) add(y, bias, n, y);
}

void silu_multiply(const float* gate, const float* up, size_t n, float* y) {
  map(gate, up, n, y, [](Vec g, Vec u) HWY_ATTR { return hn::Mul(silu(g), u); });
}

void gelu_multiply(const float* gate, const float* up, size_t n, float* y) {
  map(gate, up, n, y, [](Vec g, Vec u) HWY_ATTR { return hn::Mul(HWY_NAMESPACE::gelu(g), u); });
}

void relu_multiply(const float* gate, const float* up, size_t n, float* y) {
  map(gate, up, n, y, [](Vec g, Vec u) HWY_ATTR {
    return hn::Mul(hn::IfThenZeroElse(hn::Lt(g, hn::Zero(F32())), g), u);  // not Max, which loses NaN
  });
}

void gelu(const float* x, size_t n, float* y) {
  map(x, n, y, [](Vec v) HWY_ATTR { return HWY_NAMESPACE::gelu(v); });
}

void softmax(const float* x, size_t n, float* y) {
  const F32 d;
  const Vec lowest = set(-std::numeric_limits<float>::infinity());
  Vec max = lowest;
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) max = hn::Max(max, hn::LoadU(d, x + i));
  if (i < n) max = hn::Max(max, hn::IfThenElse(hn::FirstN(d, n - i), load_part(x + i, n - i), lowest));
  max = hn::MaxOfLanes(d, max);
  // With only -inf the differences would be NaN; subtracting 0 leaves the exponentials 0.
  max = hn::IfThenZeroElse(hn::Eq(max, lowest), max);
  Vec total = hn::Zero(d);
  for (i = 0; i + kLanes <= n; i += kLanes) {
    const Vec e = exp_of_negative(hn::Sub(hn::LoadU(d, x + i), max));
    total = hn::Add(total, e);
    hn::StoreU(e, d, y + i);
  }
  if (i < n) {
    const Vec e = exp_of_negative(hn::Sub(load_part(x + i, n - i), max));
    total = hn::Add(total, hn::IfThenElseZero(hn::FirstN(d, n - i), e));
    store_part(e, y + i, n - i);
  }
  const float denominator = hn::GetLane(hn::SumOfLanes(d, total));
  scale(y, denominator == 0 ? 0.0f : 1.0f / denominator, n, y);
}

void softcap(const float* x, float cap, size_t n, float* y) {
  const Vec c = set(cap), inverse = set(1.0f / cap);
  map(x, n, y, [c, inverse](Vec v) HWY_ATTR { return hn::Mul(c, HWY_NAMESPACE::tanh(hn::Mul(v, inverse))); });
}

struct Pair {
  Vec a, b;
};

HWY_INLINE Pair rotate(Vec x, Vec y, Vec cosine, Vec sine) {
  return {hn::MulSub(x, cosine, hn::Mul(y, sine)), hn::MulAdd(x, sine, hn::Mul(y, cosine))};
}

void rope_halves(float* x, const float* cosines, const float* sines, size_t n_pairs) {
  const F32 d;
  float* y = x + n_pairs;
  size_t i = 0;
  for (; i + kLanes <= n_pairs; i += kLanes) {
    const Pair r = rotate(hn::LoadU(d, x + i), hn::LoadU(d, y + i), hn::LoadU(d, cosines + i), hn::LoadU(d, sines + i));
    hn::StoreU(r.a, d, x + i);
    hn::StoreU(r.b, d, y + i);
  }
  const size_t rest = n_pairs - i;
  if (rest == 0) return;
  const Pair r = rotate(load_part(x + i, rest), load_part(y + i, rest), load_part(cosines + i, rest),
                        load_part(sines + i, rest));
  store_part(r.a, x + i, rest);
  store_part(r.b, y + i, rest);
}

void rope_interleaved(float* x, const float* cosines, const float* sines, size_t n_pairs) {
  const F32 d;
  const auto rotate_pairs = [&](float* pairs, Vec cosine, Vec sine) HWY_ATTR {
    Vec a, b;
    hn::LoadInterleaved2(d, pairs, a, b);
    const Pair r = rotate(a, b, cosine, sine);
    hn::StoreInterleaved2(r.a, r.b, d, pairs);
  };
  size_t i = 0;
  for (; i + kLanes <= n_pairs; i += kLanes) {
    rotate_pairs(x + 2 * i, hn::LoadU(d, cosines + i), hn::LoadU(d, sines + i));
  }
  const size_t rest = n_pairs - i;
  if (rest == 0) return;
  float pairs[2 * kLanes] = {};
  std::memcpy(pairs, x + 2 * i, 2 * rest * sizeof(float));
  rotate_pairs(pairs, load_part(cosines + i, rest), load_part(sines + i, rest));
  std::memcpy(x + 2 * i, pairs, 2 * rest * sizeof(float));
}

/// The 16-bit words of a vector, f16 rounded to nearest even, NaN as in base/half.h: the sign with 0x7E00.
struct ToF16 {
  static HWY_INLINE hn::Vec<U16> convert(Vec v) {
    const hn::Rebind<hwy::float16_t, F32> half;
    const U32 du;
    const auto bits = hn::PromoteTo(du, hn::BitCast(U16(), hn::DemoteTo(half, v)));
    const auto sign = hn::And(hn::ShiftRight<16>(hn::BitCast(du, v)), hn::Set(du, 0x8000));
    const auto nan = hn::RebindMask(du, hn::IsNaN(v));
    const auto fixed = hn::IfThenElse(nan, hn::Or(sign, hn::Set(du, 0x7E00)), bits);
    return hn::DemoteTo(U16(), hn::BitCast(I32(), fixed));
  }
};

/// bf16 rounded to nearest even, NaN truncated and made quiet.
struct ToBF16 {
  static HWY_INLINE hn::Vec<U16> convert(Vec v) {
    const U32 du;
    const auto bits = hn::BitCast(du, v);
    const auto upper = hn::ShiftRight<16>(bits);
    const auto rounding = hn::Add(hn::And(upper, hn::Set(du, 1)), hn::Set(du, 0x7FFF));
    const auto rounded = hn::ShiftRight<16>(hn::Add(bits, rounding));
    const auto nan = hn::RebindMask(du, hn::IsNaN(v));
    const auto fixed = hn::IfThenElse(nan, hn::Or(upper, hn::Set(du, 64)), rounded);
    return hn::DemoteTo(U16(), hn::BitCast(I32(), fixed));
  }
};

template <typename Conversion>
void to_half(const float* x, size_t n, void* out) {
  auto* y = static_cast<uint16_t*>(out);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) hn::StoreU(Conversion::convert(hn::LoadU(F32(), x + i)), U16(), y + i);
  if (i == n) return;
  uint16_t words[kLanes];
  hn::StoreU(Conversion::convert(load_part(x + i, n - i)), U16(), words);
  std::memcpy(static_cast<std::byte*>(out) + 2 * i, words, 2 * (n - i));
}

/// Unlike the processor's conversion this keeps signalling NaN as they are, as base/half.h does.
struct ExactF16Source : F16Source {
  static HWY_INLINE Vec widen(hn::Vec<U16> stored) {
    const F32 d;
    const U32 du;
    const auto words = hn::PromoteTo(du, stored);
    const auto magnitude = hn::And(words, hn::Set(du, 0x7FFF));
    const auto nan = hn::Gt(magnitude, hn::Set(du, 0x7C00));
    const auto sign = hn::ShiftLeft<16>(hn::And(words, hn::Set(du, 0x8000)));
    const auto kept = hn::Or(hn::Or(sign, hn::Set(du, 0x7F800000)), hn::ShiftLeft<13>(magnitude));
    return hn::BitCast(d, hn::IfThenElse(nan, kept, hn::BitCast(du, F16Source::widen(stored))));
  }
  static HWY_INLINE Vec load(const std::byte* p) { return widen(load_stored(p)); }
};

template <typename Source>
void from_half(const void* x, size_t n, float* y) {
  const auto* bytes = static_cast<const std::byte*>(x);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) hn::StoreU(Source::load(bytes + 2 * i), F32(), y + i);
  if (i < n) store_part(load_part<Source>(bytes + 2 * i, n - i), y + i, n - i);
}

constexpr VectorOps make_table(const char* target) {
  return {
      .target = target,
      .dot = dot,
      .add = add,
      .multiply = multiply,
      .scale = scale,
      .add_scaled = add_scaled,
      .rms_norm = rms_norm,
      .layer_norm = layer_norm,
      .silu_multiply = silu_multiply,
      .gelu_multiply = gelu_multiply,
      .relu_multiply = relu_multiply,
      .gelu = gelu,
      .softmax = softmax,
      .softcap = softcap,
      .rope_halves = rope_halves,
      .rope_interleaved = rope_interleaved,
      .f32_to_f16 = to_half<ToF16>,
      .f32_to_bf16 = to_half<ToBF16>,
      .f16_to_f32 = from_half<ExactF16Source>,
      .bf16_to_f32 = from_half<BF16Source>,
  };
}

}  // namespace
}  // namespace mneme::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme::kernels {

const VectorOps* simd_vector_ops(Target target) {
#if HWY_TARGETS & HWY_AVX2
  static constexpr VectorOps kAvx2Table = N_AVX2::make_table("avx2");
  if (target == Target::kAvx2) return &kAvx2Table;
#endif
#if HWY_TARGETS & HWY_AVX3
  static constexpr VectorOps kAvx512Table = N_AVX3::make_table("avx512");
  if (target == Target::kAvx512) return &kAvx512Table;
#endif
#if HWY_TARGETS & HWY_NEON
  static constexpr VectorOps kNeonTable = N_NEON::make_table("neon");
  if (target == Target::kNeon) return &kNeonTable;
#endif
  return nullptr;
}

}  // namespace mneme::kernels
#endif  // HWY_ONCE
