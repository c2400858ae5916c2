#include "kernels/cpu.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"

namespace mneme::kernels {
namespace {

TEST(Cpu, ScalarIsAlwaysThereAndTheFirst) {
  ASSERT_FALSE(available_targets().empty());
  EXPECT_EQ(available_targets().front(), Target::kScalar);
  EXPECT_TRUE(std::ranges::count(available_targets(), active_target()));
}

TEST(Cpu, TargetsCanBeSwitchedAndMissingOnesAreRefused) {
  const Target before = active_target();
  for (Target target : available_targets()) {
    set_active_target(target);
    EXPECT_EQ(active_target(), target);
  }
  for (Target target : {Target::kAvx2, Target::kAvx512, Target::kNeon}) {
    if (std::ranges::count(available_targets(), target)) continue;
    EXPECT_THROW(set_active_target(target), Error);
  }
  set_active_target(before);
}

}  // namespace
}  // namespace mneme::kernels
