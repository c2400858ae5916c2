#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/vector_distance.h"
#include "recall/index/balanced_clustering.h"
#include "recall/index/closure.h"
#include "recall/index/test_index.h"

namespace mneme::ann {
namespace {

constexpr size_t kDimension = 16;

/// Sizes of the clusters when every row goes to its nearest centre, and the mean squared distance.
std::pair<std::vector<size_t>, double> assign(std::span<const float> rows, std::span<const float> centres) {
  std::vector<size_t> sizes(centres.size() / kDimension, 0);
  double sum = 0;
  for (size_t i = 0; i < rows.size(); i += kDimension) {
    float best = INFINITY;
    size_t at = 0;
    for (size_t c = 0; c < sizes.size(); ++c) {
      const float d = kernels::distance_ops().l2_f32(rows.data() + i, centres.data() + c * kDimension, kDimension);
      if (d < best) {
        best = d;
        at = c;
      }
    }
    ++sizes[at];
    sum += best;
  }
  return {sizes, sum / (static_cast<double>(rows.size()) / kDimension)};
}

TEST(BalancedClustering, CentresBeatRandomRowsOnUnevenData) {
  const std::vector<float> rows = mixture_rows(4000, kDimension);
  const std::vector<float> centres = balanced_centres(rows, kDimension, {});
  EXPECT_NEAR(static_cast<double>(centres.size()) / kDimension, 500, 100);
  const auto [sizes, error] = assign(rows, centres);
  const auto [random_sizes, random_error] = assign(rows, std::span(rows).first(centres.size()));
  EXPECT_LT(error, 0.75 * random_error);
  EXPECT_LT(*std::max_element(sizes.begin(), sizes.end()), *std::max_element(random_sizes.begin(), random_sizes.end()));
}

TEST(BalancedClustering, EqualRowsAndFewRowsAreOneCluster) {
  const std::vector<float> equal(100 * kDimension, 2.0f);
  EXPECT_EQ(balanced_centres(equal, kDimension, {}), std::vector<float>(kDimension, 2.0f));
  EXPECT_EQ(balanced_centres(std::span(equal).first(kDimension), kDimension, {}).size(), kDimension);
  EXPECT_TRUE(balanced_centres({}, kDimension, {}).empty());
  std::vector<float> centres(2 * kDimension);
  std::vector<uint8_t> part(100);
  EXPECT_FALSE(split_in_two(equal, kDimension, 1, centres, part));
}

TEST(BalancedClustering, ASplitLeavesAQuarterOnEachSide) {
  std::vector<float> rows = mixture_rows(100, kDimension);
  for (size_t j = 0; j < kDimension; ++j) rows[j] += 100;  // one outlier, which plain 2-means would cut off alone
  std::vector<float> centres(2 * kDimension);
  std::vector<uint8_t> part(100);
  ASSERT_TRUE(split_in_two(rows, kDimension, 1, centres, part));
  const auto n = std::count(part.begin(), part.end(), 1);
  EXPECT_GE(n, 25);
  EXPECT_LE(n, 75);
  for (size_t j = 0; j < kDimension; ++j) {
    double sum = 0;
    for (size_t i = 0; i < 100; ++i) sum += part[i] == 1 ? rows[i * kDimension + j] : 0;
    EXPECT_NEAR(centres[kDimension + j], sum / static_cast<double>(n), 1e-4);
  }
}

TEST(Closure, TakesOneHeadOfADirection) {
  Ledger ledger;
  HeadTable heads(ledger, 2);
  // Around the origin: two close together in the east, one in the north, one far in the west.
  const std::vector<float> centres = {1, 0, 1.2f, 0.1f, 0, 1.5f, -5, 0};
  heads.add(centres);
  std::vector<HeadHit> taken;
  const auto names = [&] {
    std::vector<uint32_t> out;
    for (const HeadHit& hit : taken) out.push_back(hit.node);
    return out;
  };
  const float origin[] = {0, 0};
  closure_heads(heads, origin, {.rng_factor = 1, .reach = 4}, taken);
  EXPECT_EQ(names(), (std::vector<uint32_t>{0, 2}));  // the second in the east is hidden, the west out of reach
  closure_heads(heads, origin, {.rng_factor = 1, .reach = 100}, taken);
  EXPECT_EQ(names(), (std::vector<uint32_t>{0, 2, 3}));
  closure_heads(heads, origin, {.copies = 1, .reach = 100}, taken);
  EXPECT_EQ(names(), (std::vector<uint32_t>{0}));
  closure_heads(heads, origin, {.rng_factor = 100, .reach = 4}, taken);
  EXPECT_EQ(names(), (std::vector<uint32_t>{0, 1, 2}));
}

}  // namespace
}  // namespace mneme::ann
