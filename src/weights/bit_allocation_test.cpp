#include "weights/bit_allocation.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/philox.h"

namespace mneme {
namespace {

TEST(BitAllocation, EqualsBruteForce) {
  PhiloxStream random(1);
  for (int round = 0; round < 40; ++round) {
    std::vector<std::vector<TypeChoice>> tensors(1 + random.next_below(6));
    uint64_t least = 0, most = 0;
    for (auto& choices : tensors) {
      uint64_t bytes = 10 + random.next_below(50);
      double loss = 1;
      for (size_t c = 0; c < 1 + random.next_below(4); ++c) {
        choices.push_back({bytes, loss});
        bytes += 1 + random.next_below(40);
        loss *= 0.1 + 0.8 * random.next_double();
      }
      least += choices.front().bytes;
      most += choices.back().bytes;
    }
    const uint64_t budget = least + random.next_below(most - least + 1);
    double best = std::numeric_limits<double>::infinity();
    size_t combinations = 1;
    for (const auto& choices : tensors) combinations *= choices.size();
    for (size_t combination = 0; combination < combinations; ++combination) {
      uint64_t bytes = 0;
      double loss = 0;
      size_t rest = combination;
      for (const auto& choices : tensors) {
        bytes += choices[rest % choices.size()].bytes;
        loss += choices[rest % choices.size()].loss;
        rest /= choices.size();
      }
      if (bytes <= budget) best = std::min(best, loss);
    }
    const std::vector<size_t> taken = allocate_bits(tensors, budget);
    ASSERT_EQ(taken.size(), tensors.size());
    uint64_t bytes = 0;
    double loss = 0;
    for (size_t t = 0; t < tensors.size(); ++t) {
      bytes += tensors[t][taken[t]].bytes;
      loss += tensors[t][taken[t]].loss;
    }
    EXPECT_LE(bytes, budget);
    EXPECT_DOUBLE_EQ(loss, best);
  }
}

TEST(BitAllocation, TooLittleIsSaid) {
  const std::vector<std::vector<TypeChoice>> tensors = {{{100, 1.0}, {200, 0.5}}, {{50, 1.0}}};
  EXPECT_TRUE(allocate_bits(tensors, 149).empty());
  EXPECT_EQ(allocate_bits(tensors, 150), (std::vector<size_t>{0, 0}));
  EXPECT_EQ(allocate_bits(tensors, uint64_t{1} << 50), (std::vector<size_t>{1, 0}));
  // Large budgets are cut into parts; the result still fits.
  EXPECT_EQ(allocate_bits(tensors, 249, 3), (std::vector<size_t>{0, 0}));
}

}  // namespace
}  // namespace mneme
