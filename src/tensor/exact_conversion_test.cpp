#include "tensor/exact_conversion.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "base/philox.h"

namespace mneme {
namespace {

/// Every pair of the table keeps every value of random and of extreme blocks; the scale's bits stay.
TEST(ExactConversion, EveryPairKeepsEveryValue) {
  PhiloxStream random(1);
  constexpr size_t kElements = 2048;
  size_t n_pairs = 0;
  for (const DTypeInfo& from : all_dtypes()) {
    for (const DTypeInfo& to : all_dtypes()) {
      if (!converts_exactly(from.dtype, to.dtype) || from.dtype == to.dtype || to.dtype == DType::kF32) continue;
      ++n_pairs;
      for (float size : {0.0f, 1e-6f, 1.0f, 1e4f}) {
        std::vector<float> w(kElements), before(kElements), after(kElements);
        for (float& v : w) v = size * random.next_normal();
        std::vector<std::byte> blocks(row_bytes(from.dtype, kElements)), converted(row_bytes(to.dtype, kElements));
        from.encode(w.data(), nullptr, blocks.data(), kElements);
        convert_exactly(from.dtype, to.dtype, blocks.data(), converted.data(), kElements);
        from.decode(blocks.data(), before.data(), kElements);
        to.decode(converted.data(), after.data(), kElements);
        EXPECT_EQ(before, after) << from.name << " to " << to.name << ", size " << size;
      }
    }
  }
  EXPECT_GE(n_pairs, 13u + 4u);
}

TEST(ExactConversion, WhatLosesIsNotInTheTable) {
  EXPECT_FALSE(converts_exactly(DType::kQ4_K, DType::kQ8_0));
  EXPECT_FALSE(converts_exactly(DType::kQ8_0, DType::kQ4_0));
  EXPECT_FALSE(converts_exactly(DType::kBipolar8, DType::kQ8_0));
  EXPECT_FALSE(converts_exactly(DType::kBitMod4, DType::kBF16));
  EXPECT_FALSE(converts_exactly(DType::kQ4_0, DType::kBipolar4));
  EXPECT_TRUE(converts_exactly(DType::kQ6_K, DType::kF32));
}

}  // namespace
}  // namespace mneme
