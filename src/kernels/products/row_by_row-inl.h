#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "kernels/products/target.h"

namespace mneme::kernels::products {

/// Steps of products with coded matrices that a target without faster ways takes one row, or one vector, after the
/// other. Target has Ints, Floats, dot(), sum(), largest_bits() and split_vector().
template <class Target>
struct RowByRow {
  static constexpr bool kTransposedDigits = false;  ///< Digits lie in the order of depths.

  template <bool kWide, class Ints, class Bytes>
  static MNEME_INLINE Ints dot_once(Ints sum, const Bytes& levels, const int8_t* x) {
    return Target::template dot<kWide>(sum, levels, x);
  }
  /// out[r] = sum of the lanes of row r.
  template <class Floats, size_t kRows>
  static MNEME_INLINE void sum_rows(const Floats (&v)[kRows], float* out) {
    for (size_t r = 0; r < kRows; ++r) out[r] = Target::sum(v[r]);
  }
  /// scale[r] = max(factor * largest lane of row r, least) and its inverse; the lanes are bits of floats without a
  /// sign, NaN above all.
  template <class Ints, size_t kRows>
  static MNEME_INLINE void scale_rows(const Ints (&v)[kRows], float factor, float least, float* scale, float* inverse) {
    for (size_t r = 0; r < kRows; ++r) {
      const float product = std::bit_cast<float>(Target::largest_bits(v[r])) * factor;
      scale[r] = product < least ? least : product;
      inverse[r] = 1 / scale[r];
    }
  }
  /// 64 floats times a factor for each half to the nearest integers 128 * high + low, low in [0, 127].
  template <class Floats>
  static MNEME_INLINE void split(const Floats (&v)[4], float first_factor, float second_factor, int8_t* high,
                                 int8_t* low) {
    for (size_t i = 0; i < 4; ++i) {
      Target::split_vector(v[i], i < 2 ? first_factor : second_factor, high + 16 * i, low + 16 * i);
    }
  }
};

}  // namespace mneme::kernels::products
