#include "tensor/small_float.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/philox.h"

namespace mneme {
namespace {

std::vector<SmallFloat> all_formats() {
  std::vector<SmallFloat> formats;
  for (int e = 0; e <= 7; ++e) {
    for (int m = 0; e + m <= 7; ++m) {
      if (e + m > 0) formats.push_back({e, m});
    }
  }
  return formats;
}

/// All values that are not negative, ascending: the definition of the format.
std::vector<float> small_float_values(SmallFloat format) {
  std::vector<float> values;
  const int bias = format.exponent_bits <= 1 ? 0 : (1 << (format.exponent_bits - 1)) - 1;
  const int n_mantissas = 1 << format.mantissa_bits, n_exponents = 1 << format.exponent_bits;
  for (int e = 0; e < n_exponents; ++e) {
    for (int m = 0; m < n_mantissas; ++m) {
      const float fraction = std::ldexp(static_cast<float>(m), -format.mantissa_bits);
      if (format.exponent_bits == 0) {
        values.push_back(fraction);
      } else {
        values.push_back(std::ldexp(e == 0 ? fraction : 1 + fraction, (e == 0 ? 1 : e) - bias));
      }
    }
  }
  return values;
}

/// Nearest by search; between two as near, the one with the even code, or without mantissa bits the larger but for
/// zero.
float nearest(const std::vector<float>& values, bool has_mantissa, float x) {
  const float magnitude = std::abs(x);
  size_t best = 0;
  for (size_t i = 1; i < values.size(); ++i) {
    const double here = std::abs(static_cast<double>(values[i]) - magnitude),
                 least = std::abs(static_cast<double>(values[best]) - magnitude);
    const bool wins_tie = has_mantissa ? i % 2 == 0 : i > 1;
    if (here < least || (here == least && wins_tie)) best = i;
  }
  return std::copysign(values[best], x);
}

TEST(SmallFloat, LargestValuesAreThoseOfTheDefinition) {
  EXPECT_EQ((SmallFloat{4, 3}.largest()), 480);
  EXPECT_EQ((SmallFloat{5, 2}.largest()), 114688);
  EXPECT_EQ((SmallFloat{2, 1}.largest()), 6);
  EXPECT_EQ((SmallFloat{1, 1}.largest()), 3);
  EXPECT_EQ((SmallFloat{0, 7}.largest()), 127.0f / 128);
  EXPECT_EQ(small_float_values({2, 1}), (std::vector<float>{0, 0.5, 1, 1.5, 2, 3, 4, 6}));
  for (const SmallFloat format : all_formats()) {
    const auto values = small_float_values(format);
    EXPECT_TRUE(std::is_sorted(values.begin(), values.end())) << format.name();
    EXPECT_EQ(values.back(), format.largest()) << format.name();
    EXPECT_EQ(values.size(), size_t{1} << (format.bits() - 1)) << format.name();
  }
}

TEST(SmallFloat, RoundingIsTheNearestValueOfEveryFormat) {
  PhiloxStream random(1);
  for (const SmallFloat format : all_formats()) {
    const auto values = small_float_values(format);
    for (const float v : values) {
      EXPECT_EQ(round_to(format, v), v) << format.name();
      EXPECT_EQ(round_to(format, -v), -v) << format.name();
    }
    // The middles between neighbours, where ties are decided, and what is just beside them.
    for (size_t i = 0; i + 1 < values.size(); ++i) {
      const float middle = (values[i] + values[i + 1]) / 2;
      for (const float x : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e9f)}) {
        ASSERT_EQ(round_to(format, x), nearest(values, format.mantissa_bits > 0, x)) << format.name() << " " << x;
      }
    }
    for (int i = 0; i < 3000; ++i) {
      const float x = random.next_normal() * format.largest() * std::exp2(-static_cast<float>(random.next_below(12)));
      ASSERT_EQ(round_to(format, x), nearest(values, format.mantissa_bits > 0, x)) << format.name() << " " << x;
    }
    EXPECT_EQ(round_to(format, std::numeric_limits<float>::infinity()), format.largest());
    EXPECT_EQ(round_to(format, -1e30f), -format.largest());
    EXPECT_TRUE(std::isnan(round_to(format, std::nanf(""))));
  }
}

TEST(SmallFloat, BlocksRoundWithTheirOwnScaleInBothDirections) {
  PhiloxStream random(2);
  constexpr size_t kRows = 37, kColumns = 29, kBlock = 8;
  const SmallFloat format{2, 1};
  std::vector<float> x(kRows * kColumns);
  for (float& v : x) v = random.next_normal() * std::exp2(static_cast<float>(random.next_below(20)) - 10);
  for (const bool down : {false, true}) {
    std::vector<float> rounded = x;
    round_blocks(format, kBlock, down, rounded, kRows, kColumns);
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t c = 0; c < kColumns; ++c) {
        const size_t first = (down ? r : c) / kBlock * kBlock, last = std::min(first + kBlock, down ? kRows : kColumns);
        float most = 0;
        for (size_t i = first; i < last; ++i)
          most = std::max(most, std::abs(down ? x[i * kColumns + c] : x[r * kColumns + i]));
        const float scale = format.largest() / most;
        EXPECT_EQ(rounded[r * kColumns + c], round_to(format, x[r * kColumns + c] * scale) * (1 / scale));
      }
    }
  }
}

TEST(SmallFloat, ZerosTinyNumbersAndNotANumber) {
  const float nan = std::nanf(""), infinity = std::numeric_limits<float>::infinity();
  std::vector<float> x{0, 0, 0, 0, 1, nan, 2, 3, 1, infinity, 0, 0, 1e-45f, -1e-44f, 0, 0};
  round_blocks({4, 3}, 4, false, x, 1, x.size());
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(x[i], 0);
  for (size_t i = 4; i < 12; ++i) EXPECT_TRUE(std::isnan(x[i])) << i;
  for (size_t i = 12; i < 16; ++i) EXPECT_LE(std::abs(x[i]), 1e-44f);
}

TEST(SmallFloat, NamesAreReadBackAndOthersRefused) {
  for (const SmallFloat format : all_formats()) EXPECT_EQ(parse_small_float(format.name()), format);
  EXPECT_EQ(parse_small_float("E8M7").bits(), 16);
  for (const char* bad : {"", "E4", "E0M0", "E9M1", "E4M8", "e4m3", "E4M33", "F4M3"})
    EXPECT_THROW(parse_small_float(bad), Error) << bad;
}

}  // namespace
}  // namespace mneme
