#include "base/checked_math.h"

#include <gtest/gtest.h>

#include <limits>

namespace mneme {
namespace {

constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();

TEST(CheckedMath, AddAndMultiplyReportOverflow) {
  EXPECT_EQ(checked_add<uint64_t>(2, 3), 5u);
  EXPECT_EQ(checked_add<uint64_t>(kMax, 1), std::nullopt);
  EXPECT_EQ(checked_mul<uint64_t>(1u << 20, 1u << 20), uint64_t{1} << 40);
  EXPECT_EQ(checked_mul<uint64_t>(uint64_t{1} << 33, uint64_t{1} << 33), std::nullopt);
}

TEST(CheckedMath, RoundUp) {
  EXPECT_EQ(checked_round_up<uint64_t>(33, 32), 64u);
  EXPECT_EQ(checked_round_up<uint64_t>(64, 32), 64u);
  EXPECT_EQ(checked_round_up<uint64_t>(kMax, 32), std::nullopt);
  EXPECT_EQ(div_up<uint64_t>(65, 32), 3u);
}

}  // namespace
}  // namespace mneme
