#include "weights/stochastic_rounding.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "base/half.h"
#include "base/philox.h"
#include "tensor/bipolar.h"

namespace mneme {
namespace {

std::vector<DType> grids() {
  return {DType::kQ4_0,     DType::kQ5_0,     DType::kQ8_0,     DType::kBipolar2, DType::kBipolar3,
          DType::kBipolar4, DType::kBipolar5, DType::kBipolar6, DType::kBipolar7, DType::kBipolar8};
}

/// What is stored of a row, and the distance between its levels a block.
struct Stored {
  std::vector<float> values, steps;
};
Stored store(const std::vector<float>& row, DType to) {
  const DTypeInfo& info = dtype_info(to);
  std::vector<std::byte> blocks(row_bytes(to, row.size()));
  info.encode(row.data(), nullptr, blocks.data(), row.size());
  Stored out;
  out.values.resize(row.size());
  info.decode(blocks.data(), out.values.data(), row.size());
  for (size_t at = 0; at < blocks.size(); at += info.block_bytes) {
    uint16_t half = 0;
    std::memcpy(&half, blocks.data() + at, 2);
    out.steps.push_back(std::abs(f16_to_f32(half)) * (bipolar::bits_of(to) > 0 ? 2.0f : 1.0f));
  }
  return out;
}

std::vector<float> normal_row(size_t n, uint64_t seed) {
  PhiloxStream random(seed);
  std::vector<float> row(n);
  for (float& x : row) x = random.next_normal();
  return row;
}

std::vector<float> rounded(std::vector<float> row, DType to, uint64_t seed, uint64_t stream = 7, uint64_t first = 0) {
  round_stochastically(row, to, seed, stream, first);
  return row;
}

TEST(StochasticRounding, IsOfTypesWithOneScaleAndIntegers) {
  size_t n = 0;
  for (const DTypeInfo& info : all_dtypes()) n += can_round_stochastically(info.dtype) ? 1 : 0;
  EXPECT_EQ(n, grids().size());
  for (const DType to : grids()) EXPECT_TRUE(can_round_stochastically(to));
  EXPECT_FALSE(can_round_stochastically(DType::kBipolar1));
  EXPECT_FALSE(can_round_stochastically(DType::kQ4_K));
  EXPECT_FALSE(can_round_stochastically(DType::kF16));
}

TEST(StochasticRounding, EncodersFindTheRoundedValuesAgain) {
  for (const DType to : grids()) {
    for (uint64_t seed = 0; seed < 50; ++seed) {
      const std::vector<float> row = rounded(normal_row(1024, seed), to, seed);
      EXPECT_EQ(store(row, to).values, row) << dtype_info(to).name << " " << seed;
    }
  }
}

TEST(StochasticRounding, StaysWithinAStepAndNearestWithinHalfOfOne) {
  for (const DType to : grids()) {
    const std::vector<float> row = normal_row(1 << 16, 3), random = rounded(row, to, 3);
    const Stored nearest = store(row, to);
    const size_t block = dtype_info(to).block_elements;
    bool differ = false;
    for (size_t i = 0; i < row.size(); ++i) {
      const double step = static_cast<double>(nearest.steps[i / block]), x = static_cast<double>(row[i]);
      // The scale is stored as a half, so the border may lie 2^-11 of the range inside the largest value.
      const double border = 256 * step * 0x1p-11;
      // Q4_0 and Q5_0 have one level less on one side.
      const bool one_sided = to == DType::kQ4_0 || to == DType::kQ5_0;
      EXPECT_LE(std::abs(static_cast<double>(random[i]) - x), step + border) << dtype_info(to).name;
      EXPECT_LE(std::abs(static_cast<double>(nearest.values[i]) - x), (one_sided ? 1 : 0.5) * step + border)
          << dtype_info(to).name;
      differ |= random[i] != nearest.values[i];
    }
    EXPECT_TRUE(differ);
  }
}

TEST(StochasticRounding, NearestKeepsZeroAndWhatIsOnTheGrid) {
  for (const DType to : grids()) {
    std::vector<float> row = normal_row(1024, 5);
    if (bipolar::bits_of(to) == 0) {
      for (size_t i = 0; i < row.size(); i += 3) row[i] = 0;
      const std::vector<float> once = store(row, to).values, random = rounded(row, to, 5);
      for (size_t i = 0; i < row.size(); i += 3) {
        EXPECT_EQ(once[i], 0) << dtype_info(to).name;
        EXPECT_EQ(random[i], 0) << dtype_info(to).name;
      }
    }
    const std::vector<float> once = store(row, to).values;
    EXPECT_EQ(store(once, to).values, once) << dtype_info(to).name;
    EXPECT_EQ(rounded(once, to, 5), once) << dtype_info(to).name;
  }
}

TEST(StochasticRounding, HasNoBias) {
  for (const DType to : {DType::kQ4_0, DType::kQ8_0, DType::kBipolar3}) {
    // 10^6 draws of the same place between two levels, in blocks whose scale is exact: the peak is the largest level.
    const size_t block = dtype_info(to).block_elements, n_blocks = 1000000 / (block - 1) + 1;
    const float peak = to == DType::kQ4_0 ? -8.0f : to == DType::kQ8_0 ? 127.0f : 7.0f;
    for (const float x : {0.3f, -2.9f, 1.0625f}) {
      std::vector<float> row(block * n_blocks, x);
      for (size_t b = 0; b < n_blocks; ++b) row[b * block] = peak;
      const std::vector<float> out = rounded(row, to, 11);
      double sum = 0, squares = 0, n = 0;
      for (size_t i = 0; i < row.size(); ++i) {
        if (i % block == 0) continue;
        const double error = static_cast<double>(out[i]) - static_cast<double>(x);
        sum += error;
        squares += error * error;
        ++n;
      }
      ASSERT_GE(n, 1e6);
      const double sigma = std::sqrt(squares / n);
      EXPECT_LT(std::abs(sum / n), 4 * sigma / std::sqrt(n)) << dtype_info(to).name << " " << x;
      EXPECT_GT(sigma, 0) << x;
    }
  }
}

TEST(StochasticRounding, RepeatsByKeyAndPlace) {
  const std::vector<float> row = normal_row(2048, 9);
  const uint64_t stream = rounding_stream("blk.0.ffn_up.weight");
  const std::vector<float> all = rounded(row, DType::kQ4_0, 1, stream, 4096);
  EXPECT_EQ(rounded(row, DType::kQ4_0, 1, stream, 4096), all);
  // A part of the row by itself is rounded as in the whole.
  const std::vector<float> half(row.begin() + 1024, row.end());
  EXPECT_EQ(rounded(half, DType::kQ4_0, 1, stream, 5120), std::vector<float>(all.begin() + 1024, all.end()));
  EXPECT_NE(rounded(row, DType::kQ4_0, 2, stream, 4096), all);
  EXPECT_NE(rounded(row, DType::kQ4_0, 1, stream, 0), all);
  EXPECT_NE(rounded(row, DType::kQ4_0, 1, rounding_stream("blk.0.ffn_gate.weight"), 4096), all);
  EXPECT_EQ(rounding_stream(""), 0xcbf29ce484222325u);
  EXPECT_EQ(rounding_stream("a"), 0xaf63dc4c8601ec8cu);  // known value of the hash
}

TEST(StochasticRounding, LeavesBlocksWithoutAGridAlone) {
  std::vector<float> row(64, 0.0f);
  EXPECT_EQ(rounded(row, DType::kQ8_0, 1), row);
  row.assign(64, 3.0f);  // constant: every value is the peak or on its level
  EXPECT_EQ(rounded(row, DType::kQ8_0, 1), store(row, DType::kQ8_0).values);
  row.assign(64, 1e9f);  // the scale is no half: the encoder's caller refuses it
  EXPECT_EQ(rounded(row, DType::kQ8_0, 1), row);
}

}  // namespace
}  // namespace mneme
