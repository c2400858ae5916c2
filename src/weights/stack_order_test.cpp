#include "weights/stack_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <set>

namespace mneme::bitstack {
namespace {

using ::testing::ElementsAre;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(StackOrder, AverageGoesLevelByLevelAndGreedyByGainAByte) {
  const StackedGains matrices[] = {{100, {1, 1, 0.1}}, {10, {5, 0.5, 0.3, 0.2}}, {100, {9, 3, 2}}};
  EXPECT_THAT(order_blocks(StackOrder::kAverage, matrices, 0),
              ElementsAre(BlockId{0, 0}, BlockId{1, 0}, BlockId{2, 0}, BlockId{2, 1}, BlockId{0, 1}, BlockId{1, 1},
                          BlockId{2, 2}, BlockId{1, 2}, BlockId{0, 2}, BlockId{1, 3}));
  EXPECT_THAT(order_blocks(StackOrder::kGreedy, matrices, 0),
              ElementsAre(BlockId{0, 0}, BlockId{1, 0}, BlockId{2, 0}, BlockId{1, 1}, BlockId{1, 2}, BlockId{2, 1},
                          BlockId{1, 3}, BlockId{2, 2}, BlockId{0, 1}, BlockId{0, 2}));
}

TEST(StackOrder, WhatCouldNotBeMeasuredComesLastByTheNextLevel) {
  const StackedGains matrices[] = {{1, {0, kNan, 1}}, {1, {0, -5, 0}}, {1, {0, kNan, 2}}, {1, {}}};
  EXPECT_THAT(order_blocks(StackOrder::kAverage, matrices, 0),
              ElementsAre(BlockId{0, 0}, BlockId{1, 0}, BlockId{2, 0}, BlockId{1, 1}, BlockId{2, 1}, BlockId{0, 1},
                          BlockId{2, 2}, BlockId{0, 2}, BlockId{1, 2}));
}

TEST(StackOrder, RandomIsAnotherForEachSeedButKeepsLevels) {
  const std::vector<StackedGains> matrices(20, {8, {0, 1, 1}});
  const auto a = order_blocks(StackOrder::kRandom, matrices, 1), b = order_blocks(StackOrder::kRandom, matrices, 2);
  EXPECT_EQ(a, order_blocks(StackOrder::kRandom, matrices, 1));
  EXPECT_NE(a, b);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i].level, i / 20);
  std::set<uint32_t> level;
  for (size_t i = 20; i < 40; ++i) level.insert(a[i].matrix);
  EXPECT_EQ(level.size(), 20u);
}

}  // namespace
}  // namespace mneme::bitstack
