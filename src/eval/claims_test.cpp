#include "eval/claims.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace mneme {
namespace {

TEST(Claims, VerdictFollowsTheBoundAndErrorsFail) {
  const std::vector<Claim> claims = {
      {"a", "arXiv 1", "small error", "error", "0", 0.5, true, [] { return ClaimMeasurement{0.4, "x"}; }},
      {"a", "arXiv 1", "large gain", "times", "2", 2.0, false, [] { return ClaimMeasurement{1.9, "x"}; }},
      {"b", "arXiv 2", "breaks", "times", "2", 2.0, false,
       []() -> ClaimMeasurement { throw Error(ErrorCode::kNotFound, "no data"); }},
  };
  int started = 0;
  const auto all = measure_claims(claims, std::nullopt, [&](const Claim&) { ++started; });
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(started, 3);
  EXPECT_TRUE(all[0].holds);
  EXPECT_FALSE(all[1].holds);
  EXPECT_FALSE(all[2].holds);
  EXPECT_EQ(to_json(all[2]).at("error"), "no data");
  EXPECT_EQ(measure_claims(claims, "b", [](const Claim&) {}).size(), 1u);
  EXPECT_THROW(measure_claims(claims, "c", [](const Claim&) {}), Error);
}

TEST(Claims, EveryClaimNamesItsSourceAndHoldsHere) {
  for (const Claim& claim : all_claims()) {
    EXPECT_TRUE(claim.source.starts_with("arXiv ")) << claim.system;
    EXPECT_FALSE(claim.paper.empty());
    EXPECT_FALSE(claim.text.empty());
  }
  for (const char* system : {"flashattention", "fp-scaling"}) {
    for (const ClaimResult& result : measure_claims(all_claims(), system, [](const Claim&) {})) {
      EXPECT_TRUE(result.holds) << result.claim->text << ": " << result.measured.value << result.error;
    }
  }
}

}  // namespace
}  // namespace mneme
