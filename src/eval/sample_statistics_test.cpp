#include "eval/sample_statistics.h"

#include <gtest/gtest.h>

#include <vector>

namespace mneme {
namespace {

TEST(SampleStatistics, MedianAndSpread) {
  const SampleStatistics odd = summarise(std::vector<double>{3, 1, 2});
  EXPECT_EQ(odd.median, 2);
  EXPECT_EQ(odd.min, 1);
  EXPECT_EQ(odd.max, 3);
  EXPECT_EQ(summarise(std::vector<double>{4, 1, 2, 3}).median, 2.5);
  EXPECT_EQ(to_json(odd).dump(), R"({"median":2.0,"min":1.0,"max":3.0})");
}

}  // namespace
}  // namespace mneme
