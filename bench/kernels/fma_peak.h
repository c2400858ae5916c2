#pragma once

namespace mneme::bench {

/// Floating-point operations per second that one core reaches with f32 fused multiply-adds from registers, on the active
/// target; one run of about 20 ms. 0 for the scalar target.
double fma_peak();

}  // namespace mneme::bench
