#include "kernels/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/selection.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/cpu.h"
#include "kernels/selection.h"
#include "kernels/simd-inl.h"
#include "kernels/simd_math-inl.h"

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

size_t find_at_least(const float* x, size_t count, float bound, uint32_t* indices) {
  static_assert(kLanes <= kFindRoom);
  const F32 d;
  const U32 du;
  const Vec b = hn::Set(d, bound);
  size_t n = 0, i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const auto found = hn::Ge(hn::LoadU(d, x + i), b);
    const size_t n_found = hn::CountTrue(d, found);
    if (n_found == 0) continue;
    // A whole vector is stored: a compressing store to memory is slow where it is done in microcode.
    hn::StoreU(hn::Compress(hn::Iota(du, static_cast<uint32_t>(i)), hn::RebindMask(du, found)), du, indices + n);
    n += n_found;
  }
  for (; i < count; ++i) {
    if (x[i] >= bound) indices[n++] = static_cast<uint32_t>(i);
  }
  return n;
}

void keep_larger(const float* x, size_t count, float offset, float* y) {
  const F32 d;
  const Vec o = hn::Set(d, offset);
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Vec a = hn::Add(hn::LoadU(d, x + i), o), b = hn::LoadU(d, y + i);
    hn::StoreU(hn::IfThenElse(hn::Gt(a, b), a, b), d, y + i);
  }
  for (; i < count; ++i) y[i] = x[i] + offset > y[i] ? x[i] + offset : y[i];
}

float log_sum_exp(const float* x, size_t count) {
  const F32 d;
  const Vec lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  Vec max = lowest;
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) max = hn::Max(max, hn::LoadU(d, x + i));
  if (i < count) max = hn::Max(max, hn::IfThenElse(hn::FirstN(d, count - i), load_part(x + i, count - i), lowest));
  max = hn::MaxOfLanes(d, max);
  max = hn::IfThenZeroElse(hn::Eq(max, lowest), max);
  Vec total = hn::Zero(d);
  for (i = 0; i + kLanes <= count; i += kLanes)
    total = hn::Add(total, exp_of_negative(hn::Sub(hn::LoadU(d, x + i), max)));
  if (i < count) {
    const Vec e = exp_of_negative(hn::Sub(load_part(x + i, count - i), max));
    total = hn::Add(total, hn::IfThenElseZero(hn::FirstN(d, count - i), e));
  }
  return hn::GetLane(max) + std::log(hn::GetLane(hn::SumOfLanes(d, total)));
}

constexpr SelectionOps make_table() {
  return {.count_larger = count_larger,
          .find_at_least = find_at_least,
          .keep_larger = keep_larger,
          .log_sum_exp = log_sum_exp};
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

size_t find_at_least_scalar(const float* x, size_t count, float bound, uint32_t* indices) {
  size_t n = 0;
  for (size_t i = 0; i < count; ++i) {
    if (x[i] >= bound) indices[n++] = static_cast<uint32_t>(i);
  }
  return n;
}

void keep_larger_scalar(const float* x, size_t count, float offset, float* y) {
  for (size_t i = 0; i < count; ++i) y[i] = x[i] + offset > y[i] ? x[i] + offset : y[i];
}

float log_sum_exp_scalar(const float* x, size_t count) {
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  float max = kLowest, sum = 0;
  for (size_t i = 0; i < count; ++i) max = std::max(max, x[i]);
  if (max == kLowest) max = 0;
  for (size_t i = 0; i < count; ++i) sum += std::exp(x[i] - max);
  return max + std::log(sum);
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
  static constexpr SelectionOps kScalarTable = {.count_larger = count_larger_scalar,
                                                .find_at_least = find_at_least_scalar,
                                                .keep_larger = keep_larger_scalar,
                                                .log_sum_exp = log_sum_exp_scalar};
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

/// The least float that fewer than n values are larger than, by halving: counting is far cheaper than moving.
float nth_by_halving(const float* x, size_t count, size_t n) {
  int64_t low = number_of(-std::numeric_limits<float>::infinity()),
          high = number_of(std::numeric_limits<float>::infinity());
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (ops().count_larger(x, count, float_of(static_cast<int32_t>(middle))) < n) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return float_of(static_cast<int32_t>(low));
}

}  // namespace

size_t count_larger(const float* x, size_t count, float bound) {
  return ops().count_larger(x, count, bound);
}

size_t find_at_least(const float* x, size_t count, float bound, uint32_t* indices) {
  return ops().find_at_least(x, count, bound, indices);
}

void keep_larger(const float* x, size_t count, float offset, float* y) {
  ops().keep_larger(x, count, offset, y);
}

float log_sum_exp(const float* x, size_t count) {
  return ops().log_sum_exp(x, count);
}

float nth_largest(const float* x, size_t count, size_t n) {
  const size_t width = 4 * n;
  if (2 * width > count) return nth_by_halving(x, count, n);
  // The n-th largest of the maxima of `width` columns is a lower bound, and few values reach it.
  std::vector<float> maxima(x, x + width);
  for (size_t i = width; i < count; i += width) keep_larger(x + i, std::min(width, count - i), 0, maxima.data());
  std::vector<uint32_t> indices(count + kFindRoom);
  indices.resize(find_at_least(x, count, nth_by_halving(maxima.data(), width, n), indices.data()));
  std::vector<float> candidates;
  for (const uint32_t i : indices) candidates.push_back(x[i]);
  return nth_by_halving(candidates.data(), candidates.size(), n);
}

}  // namespace mneme::kernels
#endif  // HWY_ONCE
