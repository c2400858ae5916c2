#include "eval/scaling_fit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/philox.h"
#include "base/test_error.h"
#include "weights/gguf_test_bytes.h"

namespace mneme {
namespace {

using testing::HasSubstr;

/// Losses that follow a law, over the paper's sizes, with relative noise.
std::vector<ScalingRun> runs_of(const PrecisionLaw& law, bool low_precision, double noise) {
  PhiloxStream random(3);
  std::vector<ScalingRun> runs;
  const auto add = [&](TrainingSetting s) {
    runs.push_back({s, predicted_loss(law, s) * std::exp(noise * static_cast<double>(random.next_normal()))});
  };
  for (const double n : {41e6, 85e6, 154e6, 679e6}) {
    for (const double d : {10e9, 20e9, 50e9, 100e9}) {
      add({n, d, 0, 0, 0});
      if (!low_precision) continue;
      for (const auto& [e, m] : {std::pair{1, 1}, {1, 2}, {2, 1}, {2, 3}, {4, 3}}) {
        for (const double block : {5.0, 7.0, 9.0}) add({n, d, static_cast<double>(e), static_cast<double>(m), block});
      }
    }
  }
  return runs;
}

void expect_near(const PrecisionLaw& found, const PrecisionLaw& law, double tolerance, bool precision) {
  EXPECT_NEAR(found.alpha / law.alpha, 1, tolerance);
  EXPECT_NEAR(found.beta / law.beta, 1, tolerance);
  EXPECT_NEAR(found.epsilon / law.epsilon, 1, tolerance);
  EXPECT_NEAR(found.n / law.n, 1, tolerance);
  EXPECT_NEAR(found.d / law.d, 1, tolerance);
  if (!precision) return;
  EXPECT_NEAR(found.gamma / law.gamma, 1, tolerance);
  EXPECT_NEAR(found.delta / law.delta, 1, tolerance);
  EXPECT_NEAR(found.nu / law.nu, 1, tolerance);
}

TEST(ScalingFit, RecoversThePublishedConstantsFromTheirLosses) {
  const auto runs = runs_of(kPublishedLaw, true, 0);
  const ScalingFit fit = fit_scaling_law(runs, {0, 1});
  expect_near(fit.law, kPublishedLaw, 0.02, true);
  EXPECT_TRUE(fit.has_precision);
  EXPECT_EQ(fit.n_full, 16u);
  EXPECT_EQ(fit.n_low, 240u);
  EXPECT_GT(fit.r2, 0.9999);
}

TEST(ScalingFit, WithoutLowPrecisionItIsChinchilla) {
  const PrecisionLaw chinchilla = {406.4, 0.34, 410.7, 0.28, 1.69, 1, 1, 1};
  const ScalingFit fit = fit_scaling_law(runs_of(chinchilla, false, 0), {0, 1});
  EXPECT_FALSE(fit.has_precision);
  expect_near(fit.law, chinchilla, 0.02, false);
}

TEST(ScalingFit, IntervalsHoldTheTruthAndGrowWithNoise) {
  const auto width = [](double noise) {
    const ScalingFit fit = fit_scaling_law(runs_of(kPublishedLaw, true, noise), {20, 2});
    EXPECT_LE(fit.low.delta, fit.high.delta);
    EXPECT_LT(fit.low.delta, kPublishedLaw.delta + 0.3);
    EXPECT_GT(fit.high.delta, kPublishedLaw.delta - 0.3);
    return fit.high.delta - fit.low.delta;
  };
  EXPECT_LT(width(1e-4), width(3e-3));
}

/// Where low precision costs nothing, its constants are not made up: their intervals are wide, and the fit says how
/// little the term is.
TEST(ScalingFit, WhatRunsDoNotShowHasWideIntervals) {
  PrecisionLaw free = kPublishedLaw;
  free.gamma = 1e30;
  const ScalingFit fit = fit_scaling_law(runs_of(free, true, 3e-3), {20, 2});
  EXPECT_LT(fit.most_precision_loss, fit.mean_error);
  EXPECT_GT(fit.high.gamma / fit.low.gamma, 3);
  EXPECT_GT(fit.high.delta - fit.low.delta, 0.5);
  const ScalingFit real = fit_scaling_law(runs_of(kPublishedLaw, true, 3e-3), {0, 2});
  EXPECT_GT(real.most_precision_loss, real.mean_error);
}

TEST(ScalingFit, TooLittleOrMeaninglessIsRefused) {
  auto runs = runs_of(kPublishedLaw, true, 0);
  EXPECT_THAT(error_of([&] { fit_scaling_law({runs.data(), 5}, {}); }), HasSubstr("at least 6 full-precision runs"));
  std::vector<ScalingRun> few = runs_of(kPublishedLaw, false, 0);
  few.push_back({{1e8, 1e10, 2, 1, 7}, 3});
  EXPECT_THAT(error_of([&] { fit_scaling_law(few, {}); }), HasSubstr("at least 4 low-precision runs, found 1"));
  for (const double bad : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    auto broken = runs;
    broken[2].loss = bad;
    EXPECT_THAT(error_of([&] { fit_scaling_law(broken, {}); }), HasSubstr("run 3")) << bad;
  }
}

TEST(ScalingFit, ReadsRunsAndNamesBadLines) {
  const TestFolder folder;
  const auto runs = read_scaling_runs(folder.write("a.jsonl", R"({"parameters": 1e6, "tokens": 1e7, "loss": 4}

{"parameters": 1e6, "tokens": 1e7, "loss": 4.5, "exponent_bits": 2, "mantissa_bits": 1, "block": 128}
{"parameters": 1e6, "tokens": 1e7, "loss": 4.5, "exponent_bits": 2, "mantissa_bits": 1, "block": "channel"}
)"));
  ASSERT_EQ(runs.size(), 3u);
  EXPECT_EQ(runs[0].setting.log2_block, 0);
  EXPECT_EQ(runs[1].setting.log2_block, 7);
  EXPECT_EQ(runs[2].setting.log2_block, kChannelLog2Block);
  const char* bad[] = {"[]", "{\"tokens\": 1, \"loss\": 1}", "{\"parameters\": \"x\", \"tokens\": 1, \"loss\": 1}",
                       "nonsense", R"({"parameters": 1, "tokens": 1, "loss": 1, "exponent_bits": 2})"};
  for (const char* line : bad) {
    EXPECT_THAT(error_of([&] { read_scaling_runs(folder.write("b.jsonl", std::string("\n") + line)); }),
                HasSubstr("line 2 of"))
        << line;
  }
}

}  // namespace
}  // namespace mneme
