#include "kernels/integer_ops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/philox.h"

namespace mneme::integer {
namespace {

__extension__ using Wide = __int128;

// Floats do not get in.
template <typename T>
concept HasOps = requires(T x) {
  exp_nonpositive(x);
  sigmoid(x);
  square_root(x);
  divide(x, x);
  rounding_shift(x, 1);
};
template <typename T>
concept HasDot = requires(const T* x) {
  dot(x, x, 1);
};
static_assert(HasOps<int32_t> && HasOps<int64_t> && !HasOps<float> && !HasOps<double> && !HasOps<uint32_t>);
static_assert(HasDot<int8_t> && !HasDot<float> && !HasDot<int32_t>);
static_assert(
    !std::invocable<decltype([](auto x) -> decltype(saturate<int8_t>(x)) { return saturate<int8_t>(x); }), double>);

double real(int64_t x) {
  return static_cast<double>(x) / static_cast<double>(kOne);
}

TEST(IntegerOps, DyadicFactorsAreNearThemselves) {
  PhiloxStream random(1);
  for (int i = 0; i < 20000; ++i) {
    const double factor =
        std::ldexp(1 + random.next_double(), static_cast<int>(random.next_below(58)) - 29) * (i % 2 == 0 ? 1 : -1);
    const Dyadic d = to_dyadic(factor);
    EXPECT_GE(std::abs(int64_t{d.multiplier}), int64_t{1} << 30);
    EXPECT_GE(d.shift, 1);
    EXPECT_LE(d.shift, 62);
    EXPECT_LE(std::abs(std::ldexp(d.multiplier, -d.shift) / factor - 1), 0x1p-31) << factor;
  }
  EXPECT_EQ(to_dyadic(1).multiplier, 1 << 30);
  EXPECT_EQ(to_dyadic(1).shift, 30);
  // So near to the next power of two that the multiplier would have 32 bits.
  const Dyadic below = to_dyadic(1 - 0x1p-40);
  EXPECT_EQ(std::ldexp(below.multiplier, -below.shift), 1.0);
  EXPECT_EQ(to_dyadic(0).multiplier, 0);
  EXPECT_EQ(to_dyadic(0x1p-40).multiplier, 0);
  for (const double bad : {0x1p30, -0x1p31, HUGE_VAL, std::nan("")}) EXPECT_THROW((void)to_dyadic(bad), Error) << bad;
}

TEST(IntegerOps, RequantisesToTheNearestAndLimits) {
  PhiloxStream random(2);
  for (int i = 0; i < 20000; ++i) {
    const auto x = static_cast<int32_t>(random.next_u32() >> random.next_below(30));
    const double factor = std::ldexp(random.next_double() - 0.5, static_cast<int>(random.next_below(40)) - 36);
    const Dyadic d = to_dyadic(factor);
    const double exact = std::ldexp(static_cast<double>(int64_t{x} * d.multiplier), -d.shift);
    // Half a step, and what a double of 53 bits loses of a product of 62.
    EXPECT_NEAR(requantise<int8_t>(x, d), std::clamp(exact, -127.0, 127.0), 0.5000001) << x << " " << factor;
    EXPECT_NEAR(requantise<int32_t>(x, d), std::clamp(exact, -2147483647.0, 2147483647.0), 0.50001);
  }
  EXPECT_EQ(requantise<int8_t>(-1000000, to_dyadic(1)), -127);
  EXPECT_EQ(requantise<int8_t>(1000000, to_dyadic(1)), 127);
  EXPECT_EQ(requantise<int32_t>(std::numeric_limits<int32_t>::min(), to_dyadic(1e9)), -2147483647);
  EXPECT_EQ(rounding_shift(int64_t{-3}, 1), -1);  // halves upwards
  EXPECT_EQ(rounding_shift(int64_t{3}, 1), 2);
  EXPECT_EQ(divide(int64_t{-7}, int64_t{2}), -4);
  EXPECT_EQ(divide(int64_t{7}, int64_t{2}), 4);
  EXPECT_EQ(divide(int64_t{10}, int64_t{4}), 3);
  EXPECT_EQ(divide(int64_t{9}, int64_t{4}), 2);
}

TEST(IntegerOps, SquareRootsAreTheLargestThatFit) {
  const auto check = [](int64_t n) {
    const auto root = static_cast<Wide>(square_root(n));
    EXPECT_LE(root * root, n) << n;
    EXPECT_GT((root + 1) * (root + 1), n) << n;
  };
  for (int64_t n = 0; n < 70000; ++n) check(n);
  PhiloxStream random(3);
  for (int i = 0; i < 20000; ++i) check(static_cast<int64_t>(random.next_u64() >> (1 + random.next_below(60))));
  for (const int64_t root : {3037000499LL, 1000000007LL}) {
    check(root * root);
    check(root * root - 1);
  }
  check(std::numeric_limits<int64_t>::max());
  for (const int32_t n : {0, 1, 2, 3, 4, 15, 16, 2147395599, 2147395600, 2147483647}) {
    EXPECT_EQ(square_root(n), static_cast<int32_t>(std::sqrt(static_cast<double>(n)))) << n;
  }
}

/// The best a (p + b)^2 + c in the sense of least squares on a fine grid of [-ln 2, 0].
std::vector<double> fitted_parabola() {
  constexpr int kPoints = 20000;
  double m[3][4] = {};  // normal equations of the coefficients of 1, p, p^2
  for (int i = 0; i < kPoints; ++i) {
    const double p = -std::log(2.0) * (i + 0.5) / kPoints, powers[3] = {1, p, p * p};
    for (int r = 0; r < 3; ++r) {
      for (int c = 0; c < 3; ++c) m[r][c] += powers[r] * powers[c];
      m[r][3] += powers[r] * std::exp(p);
    }
  }
  for (int r = 0; r < 3; ++r) {
    for (int other = 0; other < 3; ++other) {
      if (other == r) continue;
      const double factor = m[other][r] / m[r][r];
      for (int c = 0; c < 4; ++c) m[other][c] -= factor * m[r][c];
    }
  }
  const double c0 = m[0][3] / m[0][0], c1 = m[1][3] / m[1][1], c2 = m[2][3] / m[2][2];
  return {c2, c1 / (2 * c2), c0 - c1 * c1 / (4 * c2)};
}

double largest_error(const std::vector<double>& abc) {
  double most = 0;
  for (double p = -std::log(2.0); p <= 0; p += 1e-5) {
    most = std::max(most, std::abs(abc[0] * (p + abc[1]) * (p + abc[1]) + abc[2] - std::exp(p)));
  }
  return most;
}

TEST(IntegerOps, ConstantsOfTheExponentialAreThoseOfAFit) {
  const std::vector<double> published = {0.3585, 1.353, 0.344}, fitted = fitted_parabola();
  EXPECT_NEAR(published[0], fitted[0], 0.01);
  EXPECT_NEAR(published[1], fitted[1], 0.03);
  EXPECT_NEAR(published[2], fitted[2], 0.02);
  EXPECT_LT(largest_error(published), 2.2e-3);
  EXPECT_GT(largest_error(published), largest_error(fitted) / 2);  // no constants could be twice as good
  EXPECT_LT(largest_error(fitted), 2.5e-3);
}

TEST(IntegerOps, ExponentialsAndSigmoidsStayInsideTheirBounds) {
  double most = 0, most_sigmoid = 0, most_relative = 0;
  int32_t before = -1;
  for (int32_t x = -14 << kFraction; x <= 0; x += 3) {
    const int32_t y = exp_nonpositive(x);
    const double exact = std::exp(real(x));
    most = std::max(most, std::abs(real(y) - exact));
    if (exact > 0.01) most_relative = std::max(most_relative, std::abs(real(y) / exact - 1));
    EXPECT_GE(y, before - 3) << x;  // nearly rises: the pieces meet with steps of the polynomial's error
    before = y;
    const double s = 1 / (1 + std::exp(-real(x)));
    most_sigmoid = std::max({most_sigmoid, std::abs(real(sigmoid(x)) - s), std::abs(real(sigmoid(-x)) - (1 - s))});
    EXPECT_EQ(sigmoid(x) + sigmoid(-x), x == 0 ? 2 * sigmoid(0) : kOne) << x;
  }
  EXPECT_LT(most, 2.2e-3);
  EXPECT_LT(most_relative, 4.5e-3);
  EXPECT_LT(most_sigmoid, 1.0e-3);
  EXPECT_EQ(exp_nonpositive<int32_t>(0), fixed(0.3585 * 1.353 * 1.353 + 0.344, kFraction) - 1);
  EXPECT_EQ(exp_nonpositive(int32_t{-20} << kFraction), 0);
  EXPECT_EQ(exp_nonpositive(std::numeric_limits<int32_t>::min()), 0);
  EXPECT_EQ(sigmoid(std::numeric_limits<int32_t>::min()), 0);
  EXPECT_EQ(sigmoid(std::numeric_limits<int32_t>::max()), kOne);
  EXPECT_NEAR(real(sigmoid(0)), 0.5, 1e-3);
  static_assert(exp_nonpositive<int32_t>(-(int32_t{1} << 21)) == 0);
}

TEST(IntegerOps, TheLongestProductFitsItsSum) {
  std::vector<int8_t> a(kMostProducts, -127), b(kMostProducts, 127);
  EXPECT_EQ(dot(a.data(), b.data(), a.size()), -static_cast<int32_t>(kMostProducts) * 127 * 127);
  EXPECT_EQ(kMostProducts, 133144u);
  EXPECT_GT((static_cast<int64_t>(kMostProducts) + 1) * 127 * 127, int64_t{std::numeric_limits<int32_t>::max()});
}

}  // namespace
}  // namespace mneme::integer
