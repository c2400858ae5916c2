#include "eval/paired_outcomes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>

#include "base/error.h"

namespace mneme {
namespace {

double p_value(uint64_t b, uint64_t c) {
  return PairedOutcomes{5, b, c, 7}.p_value();
}

TEST(PairedOutcomes, WorkedValuesOfTheExactTest) {
  EXPECT_NEAR(p_value(1, 9), 22.0 / 1024, 1e-12);  // 0.0215
  EXPECT_NEAR(p_value(9, 1), 22.0 / 1024, 1e-12);
  EXPECT_NEAR(p_value(0, 5), 2.0 / 32, 1e-12);
  EXPECT_NEAR(p_value(2, 8), 2 * 56.0 / 1024, 1e-12);  // 0.1094
  EXPECT_EQ(p_value(4, 4), 1);
  EXPECT_EQ(p_value(0, 0), 1);
  // 450 of 1000: by the normal approximation with continuity correction 2 Phi(-49.5 / 15.811) = 0.00175.
  EXPECT_NEAR(p_value(450, 550), 0.00175, 0.00003);
}

TEST(PairedOutcomes, CountsAndOdds) {
  const std::vector<uint8_t> a = {1, 1, 1, 0, 0, 1, 0}, b = {1, 0, 0, 1, 0, 0, 0};
  const PairedOutcomes outcomes = PairedOutcomes::of(a, b);
  EXPECT_EQ(outcomes.both, 1u);
  EXPECT_EQ(outcomes.only_first, 3u);
  EXPECT_EQ(outcomes.only_second, 1u);
  EXPECT_EQ(outcomes.neither, 2u);
  EXPECT_EQ(outcomes.odds_ratio(), 3.0);
  EXPECT_EQ((PairedOutcomes{1, 0, 0, 1}.odds_ratio()), std::nullopt);
}

TEST(PairedOutcomes, FalseDiscoveriesOfAKnownFamily) {
  // The fifteen p-values of the example in Benjamini and Hochberg (1995): at 0.05 the first four are rejected.
  const std::vector<double> p = {0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344,
                                 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000};
  const std::vector<double> adjusted = adjust_false_discoveries(p);
  size_t rejected = 0;
  for (double v : adjusted) rejected += v <= 0.05;
  EXPECT_EQ(rejected, 4u);
  EXPECT_NEAR(adjusted[0], 0.0015, 1e-12);
  EXPECT_NEAR(adjusted[3], 0.0095 * 15 / 4, 1e-12);
  EXPECT_THAT(adjust_false_discoveries(std::vector<double>{0.01, 0.04, 0.03, 0.005}),
              testing::Pointwise(testing::DoubleNear(1e-12), {0.02, 0.04, 0.04, 0.02}));
  EXPECT_TRUE(adjust_false_discoveries({}).empty());
}

/// The share of all choices of k of n tries that have one of the first c.
double by_enumeration(unsigned n, unsigned c, unsigned k) {
  size_t all = 0, hits = 0;
  for (unsigned set = 0; set < 1u << n; ++set) {
    if (std::popcount(set) != static_cast<int>(k)) continue;
    ++all;
    hits += (set & ((1u << c) - 1)) != 0;
  }
  return static_cast<double>(hits) / static_cast<double>(all);
}

TEST(PairedOutcomes, PassAtKIsTheShareOfAllChoices) {
  for (unsigned n = 1; n <= 9; ++n) {
    for (unsigned c = 0; c <= n; ++c) {
      for (unsigned k = 1; k <= n; ++k) EXPECT_NEAR(pass_at_k(n, c, k), by_enumeration(n, c, k), 1e-12);
    }
  }
  EXPECT_NEAR(pass_at_k(20, 7, 1), 0.35, 1e-12);
  EXPECT_THROW(pass_at_k(5, 1, 6), Error);
  EXPECT_THROW(pass_at_k(5, 1, 0), Error);
  EXPECT_THROW(pass_at_k(5, 6, 1), Error);
}

TEST(PairedOutcomes, SignsThatCouldBeOthers) {
  // All of one sign: two of 2^n choices are as far.
  EXPECT_NEAR(sign_flip_p_value(std::vector<double>(5, 1.0), 1), 2.0 / 32, 0.01);
  EXPECT_NEAR(sign_flip_p_value(std::vector<double>(40, -0.3), 1), 1e-4, 1e-9) << "the least that can be seen";
  EXPECT_EQ(sign_flip_p_value(std::vector<double>{1, -1, 2, -2}, 1), 1);
  EXPECT_EQ(sign_flip_p_value(std::vector<double>(7, 0.0), 1), 1);
  // 3 against 1: |sum| >= 2 with probability 1 - 6/16.
  EXPECT_NEAR(sign_flip_p_value(std::vector<double>{1, 1, 1, -1}, 2), 10.0 / 16, 0.02);
}

}  // namespace
}  // namespace mneme
