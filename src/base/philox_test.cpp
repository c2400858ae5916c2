#include "base/philox.h"

#include <gtest/gtest.h>

#include <cmath>

namespace mneme {
namespace {

// Known answers published with the reference implementation (Random123, kat_vectors).
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(Philox, StreamResumesAtAPosition) {
  PhiloxStream whole(7, 3);
  for (int i = 0; i < 13; ++i) whole.next_u32();
  PhiloxStream resumed(7, 3, whole.position());
  for (int i = 0; i < 9; ++i) EXPECT_EQ(resumed.next_u32(), whole.next_u32());
  EXPECT_NE(PhiloxStream(7, 4).next_u64(), PhiloxStream(7, 3).next_u64());
}

TEST(Philox, MomentsAreRight) {
  PhiloxStream random(1);
  double sum = 0, squares = 0, uniform = 0;
  constexpr int kDraws = 200000;
  for (int i = 0; i < kDraws; ++i) {
    const double x = random.next_normal();
    sum += x;
    squares += x * x;
    uniform += random.next_double();
  }
  EXPECT_NEAR(sum / kDraws, 0.0, 5 / std::sqrt(kDraws));
  EXPECT_NEAR(squares / kDraws, 1.0, 0.02);
  EXPECT_NEAR(uniform / kDraws, 0.5, 0.005);
  for (int i = 0; i < 1000; ++i) EXPECT_LT(random.next_below(3), 3u);
}

}  // namespace
}  // namespace mneme
