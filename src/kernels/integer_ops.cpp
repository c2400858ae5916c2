#include "kernels/integer_ops.h"

#include <cmath>

#include "base/error.h"

namespace mneme::integer {

Dyadic to_dyadic(double factor) {
  if (!std::isfinite(factor) || std::abs(factor) >= 0x1p30) {
    fail(ErrorCode::kInvalidArgument, "[integer] expected a factor below 2^30, found {}", factor);
  }
  int exponent = 0;
  const double fraction = std::frexp(factor, &exponent);  // magnitude in [1/2, 1)
  auto multiplier = static_cast<int64_t>(std::llround(std::ldexp(fraction, 31)));
  int shift = 31 - exponent;
  if (multiplier == int64_t{1} << 31 || multiplier == -(int64_t{1} << 31)) {
    multiplier /= 2;
    --shift;
  }
  if (shift < 1 || shift > 62 || multiplier == 0) {
    if (shift < 1) fail(ErrorCode::kInvalidArgument, "[integer] expected a factor below 2^30, found {}", factor);
    return {};
  }
  return {static_cast<int32_t>(multiplier), shift};
}

}  // namespace mneme::integer
