// Rows of floats as integers of two digits, for products with codes; included by multiply-inl.h.
#pragma once

#include <algorithm>
#include <bit>

#include "kernels/coded/job.h"

namespace mneme::kernels::products::MNEME_TARGET {

/// Depths whose digits are made at once, and the part of them that one group covers at least.
constexpr size_t kDigitBlock = 64;
constexpr size_t kHalfBlock = 32;
/// Depth of the scratch: the largest one in whole blocks.
constexpr size_t kPaddedDepth = (coded::kMaxDim + kDigitBlock - 1) / kDigitBlock * kDigitBlock;
constexpr size_t kMaxGroups = coded::kMaxDim / 32;  ///< Of one product or of several small ones.

/// Where the digits of depths [4 quad, 4 quad + 4) of half block `half` lie. Isa::split() may leave a block as a transposed
/// matrix of 4 x 4 quads.
constexpr size_t half_offset(size_t half) {
  return Isa::kTransposedDigits ? half / 2 * kDigitBlock + half % 2 * 8 : half * kHalfBlock;
}
constexpr size_t quad_offset(size_t quad) { return Isa::kTransposedDigits ? 16 * (quad % 4) + 4 * (quad / 4) : 4 * quad; }

/// Rows of x as integers v = 128 high + low, high in [-127, 127] and low in [0, 127], with a scale for each group.
template <size_t kRows>
struct IntegerRows {
  alignas(64) int8_t high[kRows][kPaddedDepth];
  alignas(64) int8_t low[kRows][kPaddedDepth];
  float scale[kMaxGroups][kRows], inverse[kMaxGroups][kRows];
  float offset[kMaxGroups][kRows];      ///< Sum of x * zero, or of x, over the group.
  int32_t start_high[kMaxGroups][kRows], start_low[kMaxGroups][kRows];  ///< Where the sums of products start.

  /// Sets the scales of group g from larger_bits() of what becomes integers. NaN and infinity make the scale NaN or infinite;
  /// tiny groups keep a scale that has an inverse.
  MNEME_INLINE void set_scales(size_t g, const Isa::Ints (&largest)[kRows]) {
    constexpr float kLargest = 127 * 128;
    Isa::scale_rows(largest, 1 / kLargest, 1e-36f, scale[g], inverse[g]);
  }

  /// Makes the digits of row r, depths [begin, begin + 64), from v, with an inverse of the scale for each half of them.
  MNEME_INLINE void set_digits(size_t r, size_t begin, const Isa::Floats (&v)[4], float first_inverse, float second_inverse) {
    Isa::split(v, first_inverse, second_inverse, &high[r][begin], &low[r][begin]);
  }

  /// Where the sums of group g, half blocks [first, last), start: codes of 8 bits count from the middle.
  template <size_t kBits>
  MNEME_INLINE void set_starts(size_t g, size_t first, size_t last) {
    for (size_t r = 0; r < kRows; ++r) {
      start_high[g][r] = start_low[g][r] = 0;
      if constexpr (kBits == 8 && !Isa::kSignedWide) {
        start_high[g][r] = minus_middle(high[r], first, last);
        start_low[g][r] = minus_middle(low[r], first, last);
      }
    }
  }

 private:
  /// -128 * sum of the digits.
  static MNEME_INLINE int32_t minus_middle(const int8_t* digits, size_t first, size_t last) {
    const Isa::Bytes middle = Isa::set_bytes(coded::kMiddleOf8Bits);
    Isa::Ints sum = Isa::set_ints(0);
    for (size_t half = first; half < last; ++half) {
      for (size_t quad = 0; quad < kHalfBlock / 4; ++quad) {
        sum = Isa::template dot<true>(sum, middle, digits + half_offset(half) + quad_offset(quad));
      }
    }
    alignas(64) float lanes[coded::kTileLanes];
    Isa::store_floats(lanes, Isa::as_floats(sum));
    return -std::bit_cast<int32_t>(lanes[0]);
  }
};

}  // namespace mneme::kernels::products::MNEME_TARGET
