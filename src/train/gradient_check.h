#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>

#include "base/philox.h"

namespace mneme::train {

/// Compares an analytic gradient with central differences of `loss` on up to `n_probes` entries of [values, values + n).
/// `loss` recomputes the scalar from the current values. The bound is on |difference| / max(|a|, |b|, floor).
inline void expect_gradient(double* values, const double* gradient, size_t n, const std::function<double()>& loss,
                            const std::string& name, double bound = 1e-6, size_t n_probes = 24) {
  double largest = 0;
  for (size_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(gradient[i]));
  ASSERT_GT(largest, 0) << name << ": the gradient is all zero";
  PhiloxStream random(7, n);
  for (size_t probe = 0; probe < std::min(n, n_probes); ++probe) {
    const size_t i = n <= n_probes ? probe : random.next_below(n);
    const double saved = values[i], step = 1e-4 * std::max(1.0, std::abs(saved));
    // Fourth-order central difference: error of order step^4, far below the bound.
    const auto at = [&](double x) {
      values[i] = x;
      return loss();
    };
    const double near = at(saved + step) - at(saved - step), far = at(saved + 2 * step) - at(saved - 2 * step);
    values[i] = saved;
    const double numeric = (8 * near - far) / (12 * step);
    const double size = std::max({std::abs(numeric), std::abs(gradient[i]), 1e-3 * largest});
    EXPECT_LT(std::abs(numeric - gradient[i]) / size, bound)
        << name << "[" << i << "]: finite difference " << numeric << ", backward " << gradient[i];
  }
}

}  // namespace mneme::train
