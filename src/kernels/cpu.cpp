#include "kernels/cpu.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <string>

#include "base/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace mneme::kernels {
namespace {

struct TargetList {
  std::array<Target, 3> targets{Target::kScalar};
  size_t n = 1;

  void add(Target target) { targets[n++] = target; }
};

#if defined(__x86_64__)

/// State components that the operating system saves (XCR0).
uint64_t enabled_state() {
  uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

TargetList detect() {
  TargetList list;
  constexpr uint32_t kFma = 1u << 12, kOsXsave = 1u << 27, kF16c = 1u << 29;                          // leaf 1 ecx
  constexpr uint32_t kAvx2 = 1u << 5, kF = 1u << 16, kDq = 1u << 17, kBw = 1u << 30, kVl = 1u << 31;  // leaf 7 ebx
  constexpr uint32_t kVnni = 1u << 11, kVpopcntdq = 1u << 14;                                         // leaf 7 ecx
  constexpr uint32_t kBf16 = 1u << 5;                                                                 // leaf 7.1 eax
  constexpr uint64_t kAvxState = 0x6, kAvx512State = 0xe6;
  uint32_t a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return list;
  constexpr uint32_t kLeaf1 = kFma | kOsXsave | kF16c;
  if ((c & kLeaf1) != kLeaf1) return list;
  const uint64_t state = enabled_state();
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return list;
  if ((state & kAvxState) != kAvxState || (b & kAvx2) == 0) return list;
  list.add(Target::kAvx2);
  constexpr uint32_t kLeaf7 = kF | kDq | kBw | kVl;
  if ((state & kAvx512State) != kAvx512State || (b & kLeaf7) != kLeaf7) return list;
  if ((c & kVnni) == 0 || (c & kVpopcntdq) == 0) return list;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) == 0 || (a & kBf16) == 0) return list;
  list.add(Target::kAvx512);
  return list;
}

#elif defined(__aarch64__)

TargetList detect() {
  TargetList list;
  list.add(Target::kNeon);
  return list;
}

#else

TargetList detect() {
  return {};
}

#endif

const TargetList& detected() {
  static const TargetList list = detect();
  return list;
}

Target first_target() {
  const std::span<const Target> available = available_targets();
  const char* wanted = std::getenv("MNEME_CPU");
  if (wanted == nullptr || *wanted == '\0') return available.back();
  std::string names;
  for (Target target : available) {
    if (target_name(target) == wanted) return target;
    names += names.empty() ? "" : ", ";
    names += target_name(target);
  }
  fail(ErrorCode::kInvalidArgument, "[cpu] expected MNEME_CPU to be one of {}, found \"{}\"", names, wanted);
}

std::atomic<Target>& active() {
  static std::atomic<Target> target{first_target()};
  return target;
}

}  // namespace

std::string_view target_name(Target target) {
  switch (target) {
    case Target::kScalar:
      return "scalar";
    case Target::kAvx2:
      return "avx2";
    case Target::kAvx512:
      return "avx512";
    case Target::kNeon:
      return "neon";
  }
  return "unknown";
}

Target active_target() {
  return active().load(std::memory_order_relaxed);
}

std::span<const Target> available_targets() {
  return {detected().targets.data(), detected().n};
}

void set_active_target(Target target) {
  if (!std::ranges::count(available_targets(), target)) {
    fail(ErrorCode::kUnsupported, "[cpu] target {} is not available on this processor", target_name(target));
  }
  active().store(target, std::memory_order_relaxed);
}

}  // namespace mneme::kernels
