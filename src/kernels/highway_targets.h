#pragma once

/// The instruction sets that files with Highway code are compiled for: AVX2 and AVX-512 on x86, NEON on Arm. Include it
/// before any Highway header. The AVX-512 code uses Highway's AVX3 and not AVX3_DL: the latter lets the compiler emit
/// instructions that Target::kAvx512 does not promise (VBMI2, and the VEX form of VNNI that Zen 4 lacks).
///
/// AVX2 is declared the baseline so that Highway generates no code below it; nothing here may run before
/// active_target() has said that the processor can.
#if defined(__x86_64__)
#define HWY_BASELINE_TARGETS HWY_AVX2
#endif
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)

#include <hwy/detect_targets.h>
