#include "kernels/highway_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "../bench/kernels/fma_peak.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <chrono>

#include "../bench/kernels/fma_peak.h"
#include "kernels/cpu.h"

HWY_BEFORE_NAMESPACE();
namespace mneme::bench::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Sum of `n` steps of twelve independent chains.
HWY_NOINLINE float fma_chains(size_t n) {
  const hn::ScalableTag<float> d;
  const auto b = hn::Set(d, 0.999f), c = hn::Set(d, 1e-3f);
  auto a0 = b, a1 = b, a2 = b, a3 = b, a4 = b, a5 = b, a6 = b, a7 = b, a8 = b, a9 = b, a10 = b, a11 = b;
  for (size_t i = 0; i < n; ++i) {
    for (auto* a : {&a0, &a1, &a2, &a3, &a4, &a5, &a6, &a7, &a8, &a9, &a10, &a11}) *a = hn::MulAdd(*a, b, c);
  }
  for (auto* a : {&a1, &a2, &a3, &a4, &a5, &a6, &a7, &a8, &a9, &a10, &a11}) a0 = hn::Add(a0, *a);
  return hn::GetLane(hn::SumOfLanes(d, a0));
}

inline double measure() {
  constexpr size_t kSteps = 3'000'000;
  const auto start = std::chrono::steady_clock::now();
  volatile float keep = fma_chains(kSteps);
  static_cast<void>(keep);
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
  return static_cast<double>(kSteps * 12 * 2 * HWY_LANES(float)) / time.count();
}

}  // namespace mneme::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mneme::bench {

double fma_peak() {
  switch (kernels::active_target()) {
#if HWY_TARGETS & HWY_AVX2
    case kernels::Target::kAvx2:
      return N_AVX2::measure();
#endif
#if HWY_TARGETS & HWY_AVX3
    case kernels::Target::kAvx512:
      return N_AVX3::measure();
#endif
#if HWY_TARGETS & HWY_NEON
    case kernels::Target::kNeon:
      return N_NEON::measure();
#endif
    default:
      return 0;
  }
}

}  // namespace mneme::bench
#endif  // HWY_ONCE
