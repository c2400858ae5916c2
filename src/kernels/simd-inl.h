// Loads, stores and conversions shared by the SIMD kernels; compiled once per target, so the guard toggles.
#if defined(MNEME_KERNELS_SIMD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MNEME_KERNELS_SIMD_INL_H
#undef MNEME_KERNELS_SIMD_INL_H
#else
#define MNEME_KERNELS_SIMD_INL_H
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

/// In front of a loop of constant length over vectors: unrolled, so that arrays of vectors become registers.
#undef MNEME_UNROLL
#if defined(__clang__)
#define MNEME_UNROLL _Pragma("clang loop unroll(full)")
#else
#define MNEME_UNROLL _Pragma("GCC unroll 16")
#endif

HWY_BEFORE_NAMESPACE();
namespace mneme::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using U32 = hn::ScalableTag<uint32_t>;
using I32 = hn::ScalableTag<int32_t>;
using Vec = hn::Vec<F32>;

/// Floats of a vector.
constexpr size_t kLanes = HWY_LANES(float);

/// The first n < kLanes floats at p, zeros behind; touches no byte past them.
HWY_INLINE Vec load_part(const float* p, size_t n) {
#if HWY_MEM_OPS_MIGHT_FAULT
  alignas(64) float lanes[kLanes] = {};
  std::memcpy(lanes, p, n * sizeof(float));
  return hn::Load(F32(), lanes);
#else
  return hn::MaskedLoad(hn::FirstN(F32(), n), F32(), p);
#endif
}

/// Stores the first n < kLanes floats of v.
HWY_INLINE void store_part(Vec v, float* p, size_t n) {
#if HWY_MEM_OPS_MIGHT_FAULT
  alignas(64) float lanes[kLanes];
  hn::Store(v, F32(), lanes);
  std::memcpy(p, lanes, n * sizeof(float));
#else
  hn::BlendedStore(v, hn::FirstN(F32(), n), F32(), p);
#endif
}

/// Element types of caches. `load_stored` reads kLanes elements, `widen` makes them f32. f16 goes through the processor's
/// conversion, which quiets signalling NaN.
struct F32Source {
  static constexpr size_t kBytes = 4;
  static HWY_INLINE Vec load_stored(const std::byte* p) { return hn::LoadU(F32(), reinterpret_cast<const float*>(p)); }
  static HWY_INLINE Vec widen(Vec stored) { return stored; }
  static HWY_INLINE Vec load(const std::byte* p) { return load_stored(p); }
};

using U16 = hn::Rebind<uint16_t, F32>;

struct F16Source {
  static constexpr size_t kBytes = 2;
  static HWY_INLINE hn::Vec<U16> load_stored(const std::byte* p) {
    return hn::LoadU(U16(), reinterpret_cast<const uint16_t*>(p));
  }
  static HWY_INLINE Vec widen(hn::Vec<U16> stored) {
    return hn::PromoteTo(F32(), hn::BitCast(hn::Rebind<hwy::float16_t, F32>(), stored));
  }
  static HWY_INLINE Vec load(const std::byte* p) { return widen(load_stored(p)); }
};

struct BF16Source {
  static constexpr size_t kBytes = 2;
  static HWY_INLINE hn::Vec<U16> load_stored(const std::byte* p) { return F16Source::load_stored(p); }
  static HWY_INLINE Vec widen(hn::Vec<U16> stored) {
    return hn::BitCast(F32(), hn::ShiftLeft<16>(hn::PromoteTo(U32(), stored)));
  }
  static HWY_INLINE Vec load(const std::byte* p) { return widen(load_stored(p)); }
};

/// The first n < kLanes elements of a source as stored, zeros behind.
template <typename Source>
HWY_INLINE auto load_stored_part(const std::byte* p, size_t n) {
  alignas(64) std::byte lanes[kLanes * Source::kBytes] = {};
  std::memcpy(lanes, p, n * Source::kBytes);
  return Source::load_stored(lanes);
}

template <typename Source>
HWY_INLINE Vec load_part(const std::byte* p, size_t n) {
  return Source::widen(load_stored_part<Source>(p, n));
}

}  // namespace mneme::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // MNEME_KERNELS_SIMD_INL_H
