#pragma once

#include <cmath>
#include <span>

namespace mneme::ann {

/// out = x / |x|; x is not zero. Sizes are equal.
inline void to_unit_length(std::span<const float> x, std::span<float> out) {
  double squares = 0;  // in double: f32 loses the smallest and largest lengths
  for (float value : x) squares += static_cast<double>(value) * value;
  const double factor = 1 / std::sqrt(squares);
  for (size_t i = 0; i < x.size(); ++i) out[i] = static_cast<float>(x[i] * factor);
}

}  // namespace mneme::ann
