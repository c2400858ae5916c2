#include "train/tape/storage_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>

#include "base/philox.h"

namespace mneme::train {
namespace {

void expect_valid(const std::vector<StorageRequest>& requests, const StoragePlan& plan) {
  ASSERT_EQ(plan.offsets.size(), requests.size());
  EXPECT_GE(plan.peak, plan.lower_bound);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(plan.offsets[i] % 64, 0u);
    EXPECT_LE(plan.offsets[i] + requests[i].bytes, plan.peak);
    for (size_t j = 0; j < i; ++j) {
      const bool together = requests[i].begin <= requests[j].end && requests[j].begin <= requests[i].end;
      const bool apart = plan.offsets[i] + requests[i].bytes <= plan.offsets[j] || plan.offsets[j] + requests[j].bytes <= plan.offsets[i];
      EXPECT_TRUE(!together || apart) << i << " and " << j;
    }
  }
}

TEST(StoragePlan, NothingNeedsNothing) { EXPECT_EQ(plan_storage({}).peak, 0u); }

TEST(StoragePlan, BuffersOneAfterTheOtherShareAnAddress) {
  const StoragePlan plan = plan_storage({{100, 0, 1}, {100, 2, 3}, {100, 4, 4}});
  EXPECT_EQ(plan.peak, 128u);
  EXPECT_EQ(plan.offsets, (std::vector<size_t>{0, 0, 0}));
}

TEST(StoragePlan, LastStepOfOneAndFirstOfAnotherOverlap) { EXPECT_EQ(plan_storage({{64, 0, 2}, {64, 2, 3}}).peak, 128u); }

/// 20-80 requests of mixed sizes, a quarter of them long-lived.
std::vector<StorageRequest> random_instance(uint64_t seed) {
  PhiloxStream random(seed);
  std::vector<StorageRequest> requests(20 + random.next_below(61));
  for (auto& request : requests) {
    request.bytes = 64 * (1 + random.next_below(random.next_below(2) == 0 ? 16 : 256));
    request.begin = static_cast<uint32_t>(random.next_below(100));
    request.end = request.begin + static_cast<uint32_t>(random.next_below(4) == 0 ? 20 + random.next_below(60) : random.next_below(16));
  }
  return requests;
}

TEST(StoragePlan, RandomInstancesStayNearTheLowerBound) {
  constexpr uint64_t kInstances = 200;
  double sum_before = 0, worst_before = 0, sum = 0, worst = 0;
  for (uint64_t instance = 0; instance < kInstances; ++instance) {
    const auto requests = random_instance(instance);
    const auto gap = [&](size_t moves) {
      const StoragePlan plan = plan_storage(requests, moves);
      expect_valid(requests, plan);
      return static_cast<double>(plan.peak) / static_cast<double>(plan.lower_bound) - 1;
    };
    const double before = gap(0), after = gap(2000);
    EXPECT_LE(after, before);
    sum_before += before;
    sum += after;
    worst_before = std::max(worst_before, before);
    worst = std::max(worst, after);
  }
  std::cout << "gap over the bound: orders only " << sum_before / kInstances << " on average, " << worst_before
            << " at worst; with search " << sum / kInstances << ", " << worst << "\n";
  EXPECT_LE(sum_before / kInstances, 0.01);
  EXPECT_LE(worst_before, 0.12);
  EXPECT_LE(sum / kInstances, 0.001);
  EXPECT_LE(worst, 0.05);
}

/// Instances that no choice in the planner was made on.
TEST(StoragePlan, OrdersAloneDoAsWellOnOtherInstances) {
  constexpr uint64_t kFirst = 1000, kLast = 2000;
  double sum = 0, worst = 0;
  for (uint64_t instance = kFirst; instance < kLast; ++instance) {
    const StoragePlan plan = plan_storage(random_instance(instance), 0);
    const double gap = static_cast<double>(plan.peak) / static_cast<double>(plan.lower_bound) - 1;
    sum += gap;
    worst = std::max(worst, gap);
  }
  std::cout << "gap over the bound on others: " << sum / (kLast - kFirst) << " on average, " << worst << " at worst\n";
  EXPECT_LE(sum / (kLast - kFirst), 0.01);
  EXPECT_LE(worst, 0.20);
}

}  // namespace
}  // namespace mneme::train
