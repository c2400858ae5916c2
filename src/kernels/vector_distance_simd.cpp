#include "kernels/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vector_distance_simd.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/simd-inl.h"
#include "kernels/vector_distance_tables.h"

HWY_BEFORE_NAMESPACE();
namespace mneme::kernels::HWY_NAMESPACE {
namespace {

using I8 = hn::Rebind<int8_t, F32>;

/// Stored bytes with a factor that the kernel multiplies in.
struct I8Source {
  static constexpr size_t kBytes = 1;
  static HWY_INLINE hn::Vec<I8> load_stored(const std::byte* p) {
    return hn::LoadU(I8(), reinterpret_cast<const int8_t*>(p));
  }
  static HWY_INLINE Vec widen(hn::Vec<I8> stored) { return hn::ConvertTo(F32(), hn::PromoteTo(I32(), stored)); }
  static HWY_INLINE Vec load(const std::byte* p) { return widen(load_stored(p)); }
};

/// Sum of (a - factor * b)^2; four chains hide the latency. Lanes behind the end are zero on both sides.
template <typename A, typename B, bool kScaled = false>
HWY_INLINE float squares(const void* a_data, const void* b_data, float factor, size_t n) {
  const F32 d;
  const auto* a = static_cast<const std::byte*>(a_data);
  const auto* b = static_cast<const std::byte*>(b_data);
  const Vec scale = hn::Set(d, factor);
  const auto add = [scale](Vec sum, Vec x, Vec y) HWY_ATTR {
    const Vec gap = kScaled ? hn::NegMulAdd(scale, y, x) : hn::Sub(x, y);
    return hn::MulAdd(gap, gap, sum);
  };
  Vec s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  size_t i = 0;
  const auto left = [&](size_t at) HWY_ATTR { return A::load(a + (i + at) * A::kBytes); };
  const auto right = [&](size_t at) HWY_ATTR { return B::load(b + (i + at) * B::kBytes); };
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    s0 = add(s0, left(0), right(0));
    s1 = add(s1, left(kLanes), right(kLanes));
    s2 = add(s2, left(2 * kLanes), right(2 * kLanes));
    s3 = add(s3, left(3 * kLanes), right(3 * kLanes));
  }
  for (; i + kLanes <= n; i += kLanes) s0 = add(s0, left(0), right(0));
  if (i < n) s1 = add(s1, load_part<A>(a + i * A::kBytes, n - i), load_part<B>(b + i * B::kBytes, n - i));
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
}

float l2_f32(const float* a, const float* b, size_t n) {
  return squares<F32Source, F32Source>(a, b, 1, n);
}

float l2_f16(const float* a, const void* b, size_t n) {
  return squares<F32Source, F16Source>(a, b, 1, n);
}

float l2_f16_f16(const void* a, const void* b, size_t n) {
  return squares<F16Source, F16Source>(a, b, 1, n);
}

float l2_i8(const float* a, const int8_t* codes, float scale, size_t n) {
  return squares<F32Source, I8Source, true>(a, codes, scale, n);
}

constexpr DistanceOps make_table(const char* name) {
  return {.target = name, .l2_f32 = l2_f32, .l2_f16 = l2_f16, .l2_f16_f16 = l2_f16_f16, .l2_i8 = l2_i8};
}

}  // namespace
}  // namespace mneme::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme::kernels {

const DistanceOps* simd_distance_ops(Target target) {
#if HWY_TARGETS & HWY_AVX2
  static constexpr DistanceOps kAvx2Table = N_AVX2::make_table("avx2");
  if (target == Target::kAvx2) return &kAvx2Table;
#endif
#if HWY_TARGETS & HWY_AVX3
  static constexpr DistanceOps kAvx512Table = N_AVX3::make_table("avx512");
  if (target == Target::kAvx512) return &kAvx512Table;
#endif
#if HWY_TARGETS & HWY_NEON
  static constexpr DistanceOps kNeonTable = N_NEON::make_table("neon");
  if (target == Target::kNeon) return &kNeonTable;
#endif
  return nullptr;
}

}  // namespace mneme::kernels
#endif  // HWY_ONCE
