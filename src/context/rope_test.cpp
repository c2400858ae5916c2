#include "context/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace mneme {
namespace {

RopeParameters parameters(RopeSpec::Pairing pairing, size_t n_rot) {
  RopeParameters p;
  p.pairing = pairing;
  p.n_rot = n_rot;
  return p;
}

TEST(Rope, FrequenciesFollowTheFormula) {
  const RopeSpec spec = make_rope(parameters(RopeSpec::Pairing::kHalves, 8));
  ASSERT_EQ(spec.n_pairs(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_FLOAT_EQ(spec.frequency[i], std::pow(10000.0f, -static_cast<float>(2 * i) / 8));
  EXPECT_EQ(make_rope(parameters(RopeSpec::Pairing::kNone, 8)).n_pairs(), 0u);
}

TEST(Rope, LinearScalingAndFactorsDivide) {
  RopeParameters p = parameters(RopeSpec::Pairing::kHalves, 4);
  const std::vector<float> factors = {1, 8};
  p.factors = factors;
  p.frequency_scale = 0.25;
  const RopeSpec spec = make_rope(p);
  EXPECT_FLOAT_EQ(spec.frequency[0], 0.25f);
  EXPECT_FLOAT_EQ(spec.frequency[1], 0.01f / 8 * 0.25f);
}

TEST(Rope, YarnKeepsFastPairsAndInterpolatesSlowOnes) {
  RopeParameters p = parameters(RopeSpec::Pairing::kHalves, 128);
  p.base = 1e6;
  p.yarn = true;
  p.original_context = 32768;
  p.frequency_scale = 0.25;
  const RopeSpec yarn = make_rope(p);
  p.yarn = false;
  p.frequency_scale = 1;
  const RopeSpec plain = make_rope(p);
  EXPECT_FLOAT_EQ(yarn.frequency[0], plain.frequency[0]);
  EXPECT_FLOAT_EQ(yarn.frequency[63], plain.frequency[63] * 0.25f);
  EXPECT_FLOAT_EQ(yarn.magnitude, 1 + 0.1f * std::log(4.0f));
}

TEST(Rope, ScoresDependOnDistanceOnly) {
  for (const auto pairing : {RopeSpec::Pairing::kInterleaved, RopeSpec::Pairing::kHalves}) {
    const RopeSpec spec = make_rope(parameters(pairing, 6));
    const std::vector<int32_t> positions = {3, 10, 1003, 1010};
    const RopeAngles angles(spec, positions);
    const std::vector<float> q = {1, 2, 3, 4, 5, 6, 7, 8}, k = {-1, 2, 0.5, 1, -3, 1, 2, 2};  // dims 6 and 7 pass through
    const auto score = [&](size_t at_q, size_t at_k) {
      std::vector<float> a = q, b = k;
      angles.rotate(a.data(), 1, 8, at_q);
      angles.rotate(b.data(), 1, 8, at_k);
      EXPECT_EQ(a[7], q[7]);
      double sum = 0;
      for (size_t i = 0; i < 8; ++i) sum += static_cast<double>(a[i]) * b[i];
      return sum;
    };
    EXPECT_NEAR(score(1, 0), score(3, 2), 1e-4);
    EXPECT_GT(std::abs(score(1, 0) - score(0, 0)), 1e-2);
  }
}

TEST(Rope, RunsTurnAsSingleTokensDo) {
  for (const auto pairing : {RopeSpec::Pairing::kInterleaved, RopeSpec::Pairing::kHalves}) {
    RopeParameters parameters;
    parameters.pairing = pairing;
    parameters.n_rot = 24;
    RopeSpec spec = make_rope(parameters);
    spec.magnitude = 1.3f;
    const std::vector<int32_t> positions = {100030, 100031, 100032, 100033};  // 100032 = 1563 * 64
    const RopeAngles angles(spec, positions);
    const RopeRuns runs(&spec);
    std::vector<float> x(4 * 32), want, back;
    for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
    want = x;
    for (size_t t = 0; t < 4; ++t) angles.rotate(want.data() + t * 32, 1, 32, t);
    std::vector<float> out = x;
    runs.rotate(out.data(), 32, 4, 100030);
    for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(out[i], want[i], 1e-5f);
    runs.rotate_back(out.data(), 32, 4, 100030);
    for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(out[i], x[i], 1e-5f);
  }
  std::vector<float> untouched = {1, 2};
  RopeRuns(nullptr).rotate(untouched.data(), 2, 1, 5);
  EXPECT_EQ(untouched, (std::vector<float>{1, 2}));
}

}  // namespace
}  // namespace mneme
