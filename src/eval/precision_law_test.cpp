#include "eval/precision_law.h"

#include <gtest/gtest.h>

#include <cmath>

namespace mneme {
namespace {

constexpr double kLog128 = 7;

// Numbers of arXiv 2501.02423 for a model of 1B parameters with 128 elements a scale.
TEST(PrecisionLaw, CriticalDataSizesOfThePaper) {
  const auto critical = [](double e, double m) { return critical_tokens(kPublishedLaw, {1e9, 0, e, m, kLog128}); };
  EXPECT_NEAR(critical(8, 7) / 1730e12, 1, 0.005);
  EXPECT_NEAR(critical(4, 3) / 27e12, 1, 0.02);
  EXPECT_NEAR(critical(2, 1) / 0.4e12, 1, 0.02);
  EXPECT_TRUE(std::isinf(critical_tokens(kPublishedLaw, {1e9, 0, 2, 1, 0})));
}

/// At the critical size the loss is flat in the data: less there than a little before and behind.
TEST(PrecisionLaw, LossTurnsAtTheCriticalDataSize) {
  TrainingSetting s{1e9, 0, 4, 3, kLog128};
  const double at = critical_tokens(kPublishedLaw, s);
  const auto loss = [&](double tokens) {
    s.tokens = tokens;
    return predicted_loss(kPublishedLaw, s);
  };
  EXPECT_LT(loss(at), loss(0.9 * at));
  EXPECT_LT(loss(at), loss(1.1 * at));
}

TEST(PrecisionLaw, BestLayoutsOfThePaper) {
  const int expected[][3] = {{3, 1, 1}, {4, 2, 1},  {5, 2, 2},  {6, 3, 2}, {7, 3, 3},
                             {8, 4, 3}, {10, 5, 4}, {12, 6, 5}, {16, 8, 7}};
  for (const auto& [bits, exponent, mantissa] : expected) {
    const BitLayout layout = best_layout(kPublishedLaw, bits);
    EXPECT_EQ(layout.exponent_bits, exponent) << bits;
    EXPECT_EQ(layout.mantissa_bits, mantissa) << bits;
  }
}

TEST(PrecisionLaw, BestBitsOfThePaper) {
  EXPECT_NEAR(layout_factor(kPublishedLaw), 160.697, 0.001);
  const std::pair<double, double> by_tokens[] = {{1e11, 4.27}, {1e12, 5.18}, {1e13, 6.28}, {1e14, 7.62}};
  for (const auto& [tokens, bits] : by_tokens)
    EXPECT_NEAR(best_bits_for_tokens(kPublishedLaw, tokens, kLog128), bits, 0.006) << tokens;
  const std::pair<double, double> by_compute[] = {{1e21, 4.19}, {1e24, 5.01}, {1e27, 5.98}, {1e30, 7.14}, {1e31, 7.58}};
  for (const auto& [compute, bits] : by_compute)
    EXPECT_NEAR(best_bits(kPublishedLaw, compute, kLog128), bits, 0.006) << compute;
}

TEST(PrecisionLaw, ClosedFormsAreWhereTheSearchEnds) {
  for (const double compute : {1e20, 1e22, 1e25, 1e29}) {
    const PrecisionPlan plan = search_best_plan(kPublishedLaw, compute, kLog128);
    EXPECT_NEAR(plan.bits, best_bits(kPublishedLaw, compute, kLog128), 1e-3) << compute;
    EXPECT_NEAR(kComputePerBit * plan.bits * plan.parameters * plan.tokens / compute, 1, 1e-9);
    // Seen from its own data or its own size, the plan has the best number of bits too.
    EXPECT_NEAR(plan.bits, best_bits_for_tokens(kPublishedLaw, plan.tokens, kLog128), 2e-3);
    EXPECT_NEAR(plan.bits, best_bits_for_parameters(kPublishedLaw, plan.parameters, compute, kLog128), 2e-3);
  }
}

TEST(PrecisionLaw, EffectiveParametersExplainThePenalty) {
  const double n = 7e9, d = 2e12, bits = 5;
  const double effective = effective_parameters(kPublishedLaw, n, d, bits, kLog128);
  EXPECT_LT(effective, n);
  const double exponent = kPublishedLaw.delta * bits / (kPublishedLaw.delta + kPublishedLaw.nu) - 0.5;
  const TrainingSetting low{n, d, exponent, bits - 1 - exponent, kLog128}, full{effective, d, 0, 0, 0};
  EXPECT_NEAR(predicted_loss(kPublishedLaw, low), predicted_loss(kPublishedLaw, full), 1e-9);
  EXPECT_DOUBLE_EQ(effective_parameters(kPublishedLaw, n, d, bits, 0), n);
}

TEST(PrecisionLaw, RangeOfThePublishedConstants) {
  EXPECT_TRUE(in_published_range(1e9, 5e10));
  EXPECT_FALSE(in_published_range(1e6, 5e10));
  EXPECT_FALSE(in_published_range(1e9, 1e12));
}

}  // namespace
}  // namespace mneme
