#include "kernels/selection.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "base/philox.h"

namespace mneme::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// Values of every size and sign, with repetitions.
std::vector<float> values(size_t n) {
  PhiloxStream random(n + 1);
  std::vector<float> x(n);
  for (float& v : x) {
    v = std::exp2(40 * random.next_float() - 20) * (random.next_float() < 0.3f ? -1.0f : 1.0f);
    if (random.next_float() < 0.2f) v = 0.25f;
    if (random.next_float() < 0.05f) v = -kInf;
  }
  return x;
}

TEST(Selection, NthLargestIsThatOfTheSortedValues) {
  for (const size_t n : {1, 2, 15, 16, 17, 100, 1000, 1001}) {
    const std::vector<float> x = values(n);
    std::vector<float> sorted = x;
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    for (size_t k = 1; k <= n; k += std::max<size_t>(1, n / 37)) EXPECT_EQ(nth_largest(x.data(), n, k), sorted[k - 1]);
    EXPECT_EQ(nth_largest(x.data(), n, n), sorted[n - 1]);
  }
}

TEST(Selection, CountsAndKeepsLarger) {
  for (const size_t n : {0, 1, 15, 16, 33, 200}) {
    std::vector<float> x = values(n), y = values(n + 1);
    if (n > 1) x[n / 2] = kNan;
    for (const float bound : {-1.0f, 0.25f, 3.0f}) {
      EXPECT_EQ(count_larger(x.data(), n, bound),
                static_cast<size_t>(std::count_if(x.begin(), x.end(), [bound](float v) { return v > bound; })));
    }
    std::vector<float> want = y;
    for (size_t i = 0; i < n; ++i) want[i] = x[i] - 2 > y[i] ? x[i] - 2 : y[i];
    keep_larger(x.data(), n, -2, y.data());
    EXPECT_EQ(y, want);
  }
}

TEST(Selection, FindsWhatReachesABound) {
  for (const size_t n : {0, 1, 15, 16, 33, 200}) {
    std::vector<float> x = values(n);
    if (n > 1) x[n / 2] = kNan;
    for (const float bound : {-kInf, -1.0f, 0.25f, 3.0f}) {
      std::vector<uint32_t> found(n + kFindRoom), want;
      found.resize(find_at_least(x.data(), n, bound, found.data()));
      for (size_t i = 0; i < n; ++i) {
        if (x[i] >= bound) want.push_back(static_cast<uint32_t>(i));
      }
      EXPECT_EQ(found, want);
    }
  }
}

TEST(Selection, LogSumExpIsThatOfDoubles) {
  for (const size_t n : {1, 2, 15, 16, 33, 1000}) {
    PhiloxStream random(n);
    std::vector<float> x(n);
    for (float& v : x) v = 5 * random.next_normal();
    double sum = 0;
    for (const float v : x) sum += std::exp(static_cast<double>(v));
    EXPECT_NEAR(log_sum_exp(x.data(), n), std::log(sum), 2e-6 * std::max(1.0, std::abs(std::log(sum))));
    std::vector<float> far = x;
    for (float& v : far) v += 1000;
    EXPECT_NEAR(log_sum_exp(far.data(), n), 1000 + std::log(sum), 2e-4) << "nothing overflows";
    x[n / 2] = -kInf;
    EXPECT_EQ(std::isfinite(log_sum_exp(x.data(), n)), n > 1);
    x[n / 2] = kNan;
    EXPECT_TRUE(std::isnan(log_sum_exp(x.data(), n)));
    x.assign(n, -kInf);
    EXPECT_EQ(log_sum_exp(x.data(), n), -kInf);
  }
}

}  // namespace
}  // namespace mneme::kernels
