#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

/// Floating-point formats of a few bits, as used for training in low precision (arXiv 2501.02423, section 3): a sign, E
/// exponent bits, M mantissa bits, subnormals, and no infinities or NaN: every code is a number.
///
///   value = (-1)^s 2^(e - bias) (1 + m / 2^M)      e > 0
///   value = (-1)^s 2^(1 - bias) m / 2^M            e = 0
///   bias  = 2^(E-1) - 1, and 0 for E = 1
///
/// E = 0 is fixed point: i / 2^M for i = 0 .. 2^M - 1. Values round to the nearest, ties to the even code (without
/// mantissa bits to the larger value, and to zero below the least one); what lies beyond the largest value becomes the
/// largest. Accuracy of a block: every rounded value differs by at most half a step.
namespace mneme {

struct SmallFloat {
  int exponent_bits, mantissa_bits;  ///< E in 0 .. 8, M in 0 .. 7, E + M at least 1.

  bool operator==(const SmallFloat&) const = default;

  int bits() const { return 1 + exponent_bits + mantissa_bits; }
  float largest() const;
  /// "E4M3".
  std::string name() const;
};

/// "E4M3" and the like. Throws Error(kInvalidArgument).
SmallFloat parse_small_float(std::string_view name);

/// The value of the format that is nearest to x; NaN stays NaN.
float round_to(SmallFloat format, float x);

/// Rounds a matrix [rows, columns] in place, with one scale for each run of `block` elements: scale = largest() /
/// largest magnitude of the run, x = round_to(x * scale) / scale. Runs go along the columns of a row, or down the rows
/// of a column when `down`; the last run of each may be shorter. A run of zeros stays as it is; a run with NaN or
/// infinity becomes NaN.
void round_blocks(SmallFloat format, size_t block, bool down, std::span<float> values, size_t rows, size_t columns);

}  // namespace mneme
