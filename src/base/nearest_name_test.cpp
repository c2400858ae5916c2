#include "base/nearest_name.h"

#include <gtest/gtest.h>

#include <array>

namespace mneme {
namespace {

TEST(NearestName, ProposesWhatIsCloseAndNothingElse) {
  constexpr std::array<std::string_view, 3> kNames = {"kivi", "window", "bfp"};
  EXPECT_EQ(did_you_mean("kvi", kNames), "; did you mean 'kivi'?");
  EXPECT_EQ(did_you_mean("wndwo", kNames), "");
  EXPECT_EQ(did_you_mean("windows", kNames), "; did you mean 'window'?");
  EXPECT_EQ(did_you_mean("bfq", kNames), "; did you mean 'bfp'?");
  EXPECT_EQ(did_you_mean("xyz", kNames), "");
  EXPECT_EQ(did_you_mean("", kNames), "");
}

}  // namespace
}  // namespace mneme
