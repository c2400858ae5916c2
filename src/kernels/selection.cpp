#include "kernels/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/selection.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <bit>
#include <cstdint>
#include <limits>

#include "kernels/cpu.h"
#include "kernels/selection.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mneme::kernels::HWY_NAMESPACE {
namespace {

size_t count_larger(const float* x, size_t count, float bound) {
  const F32 d;
  const Vec b = hn::Set(d, bound);
  size_t n = 0, i = 0;
  for (; i + kLanes <= count; i += kLanes) n += hn::CountTrue(d, hn::Gt(hn::LoadU(d, x + i), b));
  for (; i < count; ++i) n += x[i] > bound ? 1 : 0;
  return n;
}

void keep_larger(const float* x, size_t count, float* y) {
  const F32 d;
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Vec a = hn::LoadU(d, x + i), b = hn::LoadU(d, y + i);
    hn::StoreU(hn::IfThenElse(hn::Gt(a, b), a, b), d, y + i);
  }
  for (; i < count; ++i) y[i] = x[i] > y[i] ? x[i] : y[i];
}

constexpr SelectionOps make_table() {
  return {.count_larger = count_larger, .keep_larger = keep_larger};
}

}  // namespace
}  // namespace mneme::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme::kernels {
namespace {

size_t count_larger_scalar(const float* x, size_t count, float bound) {
  size_t n = 0;
  for (size_t i = 0; i < count; ++i) n += x[i] > bound ? 1 : 0;
  return n;
}

void keep_larger_scalar(const float* x, size_t count, float* y) {
  for (size_t i = 0; i < count; ++i) y[i] = x[i] > y[i] ? x[i] : y[i];
}

/// Numbers in the order of the floats: the bits, those of negative floats turned around. Its own inverse.
int32_t turn_negative(int32_t bits) {
  return bits >= 0 ? bits : bits ^ std::numeric_limits<int32_t>::max();
}

float float_of(int32_t number) {
  return std::bit_cast<float>(turn_negative(number));
}

int32_t number_of(float x) {
  return turn_negative(std::bit_cast<int32_t>(x));
}

const SelectionOps& ops() {
  static constexpr SelectionOps kScalarTable = {.count_larger = count_larger_scalar, .keep_larger = keep_larger_scalar};
#if HWY_TARGETS & HWY_AVX2
  static constexpr SelectionOps kAvx2Table = N_AVX2::make_table();
  if (active_target() == Target::kAvx2) return kAvx2Table;
#endif
#if HWY_TARGETS & HWY_AVX3
  static constexpr SelectionOps kAvx512Table = N_AVX3::make_table();
  if (active_target() == Target::kAvx512) return kAvx512Table;
#endif
#if HWY_TARGETS & HWY_NEON
  static constexpr SelectionOps kNeonTable = N_NEON::make_table();
  if (active_target() == Target::kNeon) return kNeonTable;
#endif
  return kScalarTable;
}

}  // namespace

size_t count_larger(const float* x, size_t count, float bound) {
  return ops().count_larger(x, count, bound);
}

void keep_larger(const float* x, size_t count, float* y) {
  ops().keep_larger(x, count, y);
}

float nth_largest(const float* x, size_t count, size_t n) {
  // The least float that fewer than n values are larger than, by halving: counting is far cheaper than moving.
  int64_t low = number_of(-std::numeric_limits<float>::infinity()),
          high = number_of(std::numeric_limits<float>::infinity());
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (count_larger(x, count, float_of(static_cast<int32_t>(middle))) < n) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return float_of(static_cast<int32_t>(low));
}

}  // namespace mneme::kernels
#endif  // HWY_ONCE
