#include "tensor/small_float.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace mneme {
namespace {

int bias_of(SmallFloat format) {
  return format.exponent_bits <= 1 ? 0 : (1 << (format.exponent_bits - 1)) - 1;
}

/// Exponent whose step 2^(exponent - M) is the smallest: of the smallest normal values, shared by the subnormal ones.
int least_exponent(SmallFloat format) {
  return format.exponent_bits == 0 ? 0 : 1 - bias_of(format);
}

/// 2^e for e in the range of normal floats.
float power_of_two(int e) {
  return std::bit_cast<float>(static_cast<uint32_t>(e + 127) << 23);
}

/// What rounding needs to know, worked out once for many values.
struct Rounder {
  float largest;
  int least, mantissa_bits;

  explicit Rounder(SmallFloat format)
      : largest(format.largest()), least(least_exponent(format)), mantissa_bits(format.mantissa_bits) {}

  float operator()(float x) const {
    const float magnitude = std::min(std::abs(x), largest);
    const int exponent = static_cast<int>(std::bit_cast<uint32_t>(magnitude) >> 23) - 127;
    // Adding and taking away a number whose last bit is one step rounds to the nearest step, ties to even.
    const float big = power_of_two(std::max(exponent, least) - mantissa_bits + 23);
    const float rounded = std::min((magnitude + big) - big, largest);
    return std::copysign(rounded, x);
  }
};

/// Scales, rounds and scales back the values of one run, `stride` apart.
void round_run(const Rounder& round, float* x, size_t n, size_t stride) {
  float most = 0;
  bool finite = true;
  for (size_t i = 0; i < n; ++i) {
    const float magnitude = std::abs(x[i * stride]);
    finite = finite && magnitude <= std::numeric_limits<float>::max();
    most = std::max(most, magnitude);
  }
  if (!finite) {
    for (size_t i = 0; i < n; ++i) x[i * stride] = std::numeric_limits<float>::quiet_NaN();
    return;
  }
  // A run of numbers near the smallest floats has no scale that is finite; it rounds to zero.
  const float scale = round.largest / most;
  if (most == 0 || !(scale <= std::numeric_limits<float>::max())) {
    for (size_t i = 0; i < n; ++i) x[i * stride] *= 0;
    return;
  }
  const float back = 1 / scale;
  for (size_t i = 0; i < n; ++i) x[i * stride] = round(x[i * stride] * scale) * back;
}

}  // namespace

float SmallFloat::largest() const {
  const float mantissa = 2 - std::ldexp(1.0f, -mantissa_bits);
  if (exponent_bits == 0) return 1 - std::ldexp(1.0f, -mantissa_bits);
  return std::ldexp(mantissa, (1 << exponent_bits) - 1 - bias_of(*this));
}

std::string SmallFloat::name() const {
  return fmt::format("E{}M{}", exponent_bits, mantissa_bits);
}

SmallFloat parse_small_float(std::string_view name) {
  const bool shaped = name.size() == 4 && name[0] == 'E' && name[2] == 'M' && name[1] >= '0' && name[1] <= '8' &&
                      name[3] >= '0' && name[3] <= '7';
  const SmallFloat format = shaped ? SmallFloat{name[1] - '0', name[3] - '0'} : SmallFloat{0, 0};
  if (format.exponent_bits + format.mantissa_bits == 0) {
    fail(ErrorCode::kInvalidArgument, "[number format] expected E0M1 to E8M7, found '{}'", name);
  }
  return format;
}

float round_to(SmallFloat format, float x) {
  return std::isnan(x) ? x : Rounder(format)(x);
}

void round_blocks(SmallFloat format, size_t block, bool down, std::span<float> values, size_t rows, size_t columns) {
  const Rounder round(format);
  if (down) {
    for (size_t first = 0; first < rows; first += block) {
      const size_t n = std::min(block, rows - first);
      for (size_t c = 0; c < columns; ++c) round_run(round, values.data() + first * columns + c, n, columns);
    }
    return;
  }
  for (size_t r = 0; r < rows; ++r) {
    for (size_t first = 0; first < columns; first += block) {
      round_run(round, values.data() + r * columns + first, std::min(block, columns - first), 1);
    }
  }
}

}  // namespace mneme
