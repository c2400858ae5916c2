#pragma once

#include <span>
#include <string_view>

namespace mneme::kernels {

/// Instruction sets that kernels are written for, weakest first.
enum class Target { kScalar, kAvx2, kAvx512, kNeon };

std::string_view target_name(Target target);

/// The target that all kernels use: the best the processor has, or the one that MNEME_CPU names. kAvx512 means AVX-512
/// F, BW, DQ, VL with VNNI, BF16 and VPOPCNTDQ. Throws Error(kInvalidArgument) when MNEME_CPU names an unknown or
/// missing one.
Target active_target();

/// Targets that this processor can run, weakest first.
std::span<const Target> available_targets();

/// Replaces the active target; for tests that compare targets in one process. Not thread-safe.
void set_active_target(Target target);

}  // namespace mneme::kernels
