#include "../bench/kernels/product_peak.h"

#include <chrono>
#include <cstddef>

#include "base/parallel.h"
#include "kernels/cpu.h"

namespace mneme::bench {

#if defined(__x86_64__)
namespace {

constexpr size_t kSteps = 2'000'000;
/// Independent sums: more than latency (4 and 6 cycles) times two instructions a cycle.
constexpr double kChains = 16;

// The loops are written in assembly because compilers move accumulators of such empty loops through memory.
#define MNEME_CHAINS(instruction)                                \
  ".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\t" instruction \
  " %%zmm16,%%zmm16,%%zmm\\r\n\t"                                \
  ".endr"
#define MNEME_REGISTERS                                                                                               \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", \
      "xmm14", "xmm15"

void int8_chains() {
  for (size_t i = 0; i < kSteps; ++i) asm volatile(MNEME_CHAINS("vpdpbusd")::: MNEME_REGISTERS);
}
void bf16_chains() {
  for (size_t i = 0; i < kSteps; ++i) asm volatile(MNEME_CHAINS("vdpbf16ps")::: MNEME_REGISTERS);
}

/// Instructions per second of all threads.
double rate(void (*chains)()) {
  const auto start = std::chrono::steady_clock::now();
  parallel_workers([&](int, int) { chains(); });
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
  return static_cast<double>(kSteps) * kChains * n_threads() / time.count();
}

}  // namespace

ProductPeak product_peak() {
  if (kernels::active_target() != kernels::Target::kAvx512) return {};
  constexpr double kLanes = 16, kInt8 = 4 * 2 * kLanes, kBf16 = 2 * 2 * kLanes;
  return {rate(int8_chains) * kInt8, rate(bf16_chains) * kBf16};
}
#else
ProductPeak product_peak() {
  return {};
}
#endif

}  // namespace mneme::bench
