#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <string>

#include "kernels/cpu.h"

/// Comparison of kernels with references in double, for tests.
namespace mneme::kernels {

/// Relative rounding error of one f32 operation.
inline constexpr double kUnitRoundoff = 0x1p-24;
/// Absolute error of a result that may have become subnormal or zero.
inline constexpr double kSmallestNormal = 0x1p-126;

/// What a kernel should give for one element, and the error it may make.
struct Expected {
  double value;
  double bound;
};

/// Checks every element against its expected value; on failure names the worst by its index and error in bounds. NaN and
/// infinities must match exactly.
inline testing::AssertionResult close_to(std::span<const float> got, const std::function<Expected(size_t)>& expected) {
  double worst = 0;
  size_t at = 0, n_bad = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const Expected want = expected(i);
    const double value = got[i];
    double error = std::abs(value - want.value) / std::max(want.bound, 1e-300);
    if (std::isnan(want.value)) error = std::isnan(value) ? 0 : INFINITY;
    if (std::isinf(want.value)) error = value == want.value ? 0 : INFINITY;
    if (error <= 1) continue;  // false for NaN
    ++n_bad;
    if (std::isnan(error)) error = INFINITY;
    if (error > worst) {
      worst = error;
      at = i;
    }
  }
  if (n_bad == 0) return testing::AssertionSuccess();
  const Expected want = expected(at);
  return testing::AssertionFailure() << n_bad << " of " << got.size() << " elements are off; the worst is [" << at
                                     << "] = " << got[at] << ", expected " << want.value << " +- " << want.bound << " ("
                                     << worst << " times the bound)";
}

/// Runs `check` with each target of this processor active, naming it in failures, and restores the target.
inline void on_every_target(const std::function<void()>& check) {
  const Target before = active_target();
  for (Target target : available_targets()) {
    set_active_target(target);
    SCOPED_TRACE(std::string(target_name(target)));
    check();
  }
  set_active_target(before);
}

}  // namespace mneme::kernels
