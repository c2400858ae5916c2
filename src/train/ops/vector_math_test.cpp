#include "train/ops/vector_math.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <vector>

#include "base/philox.h"
#include "train/ops/gemm.h"

namespace mneme::train {
namespace {

template <typename T>
std::vector<T> normal_values(size_t n, uint64_t seed) {
  PhiloxStream random(seed);
  std::vector<T> x(n);
  for (T& value : x) value = static_cast<T>(random.next_normal());
  return x;
}

constexpr size_t kSizes[] = {1, 2, 7, 15, 16, 17, 31, 33, 64, 130, 1001};

/// Runs the same expression on floats and doubles and compares every output.
template <class Body>
void compare(Body body, double tolerance) {
  for (const size_t n : kSizes) {
    auto a = normal_values<float>(n, 1), b = normal_values<float>(n, 2), c = normal_values<float>(n, 3);
    std::vector<double> ad(a.begin(), a.end()), bd(b.begin(), b.end()), cd(c.begin(), c.end());
    // One value beyond the end must stay as it is.
    for (auto* x : {&a, &b, &c}) x->push_back(42.0f);
    const double got = static_cast<double>(body(a.data(), b.data(), c.data(), n, float{}));
    const double expected = body(ad.data(), bd.data(), cd.data(), n, double{});
    EXPECT_NEAR(got, expected, tolerance * std::sqrt(static_cast<double>(n))) << n;
    for (size_t i = 0; i < n; ++i) {
      EXPECT_NEAR(a[i], ad[i], tolerance) << n << " " << i;
      EXPECT_NEAR(b[i], bd[i], tolerance) << n << " " << i;
      EXPECT_NEAR(c[i], cd[i], tolerance) << n << " " << i;
    }
    EXPECT_EQ(a[n], 42.0f);
    EXPECT_EQ(b[n], 42.0f);
    EXPECT_EQ(c[n], 42.0f);
  }
}

// Sums of n products of normal values: rounding grows with sqrt(n) times 2^-24.
TEST(TrainVectorMath, Sums) {
  compare([](auto* a, auto* b, auto*, size_t n, auto) { return dot(a, b, n); }, 2e-6);
  compare([](auto* a, auto* b, auto* c, size_t n, auto) { return dot3(a, b, c, n); }, 4e-6);
  compare([](auto* a, auto*, auto*, size_t n, auto) { return max_of(a, n); }, 1e-7);
}

TEST(TrainVectorMath, ElementWise) {
  compare([](auto* a, auto* b, auto* c, size_t n, auto zero) { add(a, b, n, c); return zero; }, 1e-6);
  compare([](auto* a, auto* b, auto*, size_t n, auto zero) { add_scaled(a, decltype(zero){0.3f}, n, b); return zero; }, 1e-6);
  compare([](auto* a, auto*, auto* c, size_t n, auto zero) { scale(a, decltype(zero){-1.7f}, n, c); return zero; }, 1e-6);
  compare([](auto* a, auto* b, auto* c, size_t n, auto zero) { multiply_scaled(a, b, decltype(zero){0.7f}, n, c); return zero; }, 2e-6);
  compare([](auto* a, auto* b, auto* c, size_t n, auto zero) { add_product(a, b, decltype(zero){0.7f}, n, c); return zero; }, 2e-6);
}

TEST(TrainVectorMath, SoftmaxAndGates) {
  compare([](auto* a, auto*, auto*, size_t n, auto zero) { return exp_shifted(a, decltype(zero){0.9f}, decltype(zero){0.4f}, n); }, 1e-5);
  compare([](auto* a, auto* b, auto*, size_t n, auto zero) { softmax_backward(a, decltype(zero){0.2f}, decltype(zero){0.5f}, n, b); return zero; }, 2e-6);
  compare([](auto* a, auto* b, auto* c, size_t n, auto zero) { swiglu(a, b, n, c); return zero; }, 4e-6);
  compare([](auto* a, auto* b, auto* c, size_t n, auto zero) { swiglu_backward(a, b, c, n, a, b); return zero; }, 8e-6);
}

TEST(TrainVectorMath, RotationIsUndoneByItsInverse) {
  const auto x = normal_values<float>(10, 4), angles = normal_values<float>(5, 5);
  std::vector<float> cosines, sines, y(10), back(10);
  for (const float a : angles) {
    cosines.push_back(std::cos(a));
    sines.push_back(std::sin(a));
  }
  rotate_pairs(x.data(), cosines.data(), sines.data(), 1.0f, 5, y.data());
  rotate_pairs(y.data(), cosines.data(), sines.data(), -1.0f, 5, back.data());
  EXPECT_NEAR(y[0], x[0] * cosines[0] - x[1] * sines[0], 1e-6);
  for (size_t i = 0; i < 10; ++i) EXPECT_NEAR(back[i], x[i], 1e-6);
}

TEST(TrainVectorMath, Bf16RoundsToNearestEven) {
  std::vector<float> x = normal_values<float>(37, 6);
  x[0] = std::bit_cast<float>(0x3F808000u);  // a tie: rounds to the even 0x3F80
  x[1] = std::bit_cast<float>(0x3F818000u);  // a tie: rounds to the even 0x3F82
  std::vector<uint16_t> y(x.size());
  to_bf16(x.data(), x.size(), y.data());
  EXPECT_EQ(y[0], 0x3F80);
  EXPECT_EQ(y[1], 0x3F82);
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_NEAR(std::bit_cast<float>(uint32_t{y[i]} << 16), x[i], std::abs(x[i]) * 0x1p-8f);
  }
}

TEST(Gemm, FormatsAgreeOnAllTranspositions) {
  // The larger ones have several of the pieces that are widened where the processor has no bfloat16 products.
  for (const auto& [m, n, k] : {std::array<size_t, 3>{37, 29, 45}, {1030, 9, 45}, {37, 9, 1030}}) {
    const auto a = normal_values<float>(m * k, 1), b = normal_values<float>(k * n, 2), start = normal_values<float>(m * n, 3);
    const std::vector<double> ad(a.begin(), a.end()), bd(b.begin(), b.end());
    std::vector<uint16_t> a16(a.size()), b16(b.size());
    to_bf16(a.data(), a.size(), a16.data());
    to_bf16(b.data(), b.size(), b16.data());
    for (const bool ta : {false, true}) {
      for (const bool tb : {false, true}) {
        SCOPED_TRACE(testing::Message() << m << " x " << n << " x " << k << (ta ? ", A^T" : "") << (tb ? ", B^T" : ""));
        const GemmShape shape{m, n, k, ta, tb, ta ? m : k, tb ? k : n, n};
        std::vector<float> c = start, c16 = start;
        std::vector<double> expected(start.begin(), start.end());
        gemm(shape, 0.5, ad.data(), bd.data(), 1.0, expected.data());
        gemm(shape, 0.5f, a.data(), b.data(), 1.0f, c.data());
        for (size_t i = 0; i < c.size(); ++i) ASSERT_NEAR(c[i], expected[i], 1e-4);
        gemm(shape, 1.0, ad.data(), bd.data(), 0.0, expected.data());
        gemm_bf16(shape, a16.data(), b16.data(), false, c16.data());
        // k products of values rounded to 2^-9 each: standard deviation sqrt(2 k / 3) * 2^-9, times eight.
        const double tolerance = 8 * std::sqrt(2.0 / 3 * static_cast<double>(k)) / 512;
        for (size_t i = 0; i < c.size(); ++i) ASSERT_NEAR(c16[i], expected[i], tolerance);
        std::vector<float> twice = c16;
        gemm_bf16(shape, a16.data(), b16.data(), true, twice.data());
        for (size_t i = 0; i < c.size(); ++i) ASSERT_NEAR(twice[i], 2 * c16[i], 1e-3);
      }
    }
  }
}

}  // namespace
}  // namespace mneme::train
