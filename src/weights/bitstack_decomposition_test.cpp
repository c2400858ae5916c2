#include "weights/bitstack_decomposition.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <tuple>

#include "base/philox.h"
#include "base/test_error.h"
#include "kernels/subspace.h"
#include "kernels/vector_ops.h"

namespace mneme::bitstack {
namespace {

using ::testing::HasSubstr;

std::vector<float> normal(size_t n, uint64_t seed) {
  PhiloxStream random(seed);
  std::vector<float> out(n);
  for (float& v : out) v = random.next_normal();
  return out;
}

std::vector<float> normal_squares(size_t n) {
  std::vector<float> out = normal(n, 9);
  for (float& v : out) v *= v;
  return out;
}

/// Sum of the first n blocks.
std::vector<float> sum_of_blocks(const Decomposition& made, const BlockLayout& layout, size_t n) {
  std::vector<float> sum(layout.rows * layout.columns), one(sum.size());
  for (size_t i = 0; i < n; ++i) {
    decode_block({layout.rows, layout.columns, made.vectors}, made.blocks[i].data(), 0, layout.rows, one.data());
    for (size_t j = 0; j < sum.size(); ++j) sum[j] += one[j];
  }
  return sum;
}

/// Relative squared error of the best approximation of rank r.
double svd_error(const std::vector<float>& w, size_t rows, size_t columns, size_t r) {
  Ledger ledger;
  kernels::SubspaceFinder finder(ledger, rows, columns, r, "test", 5);
  const auto multiply = [&](const float* x, size_t n, bool transposed, float* y) {
    const kernels::VectorOps& ops = kernels::vector_ops();
    std::fill_n(y, n * (transposed ? columns : rows), 0.0f);
    for (size_t i = 0; i < rows; ++i) {
      for (size_t t = 0; t < n; ++t) {
        if (transposed) {
          ops.add_scaled(w.data() + i * columns, x[t * rows + i], columns, y + t * columns);
        } else {
          y[t * rows + i] = ops.dot(w.data() + i * columns, x + t * columns, columns);
        }
      }
    }
  };
  std::vector<float> basis(r * rows), image(r * columns);
  finder.left({rows, columns, multiply}, r, 0, basis.data());
  multiply(basis.data(), r, true, image.data());
  double all = 0, kept = 0;
  for (float v : w) all += static_cast<double>(v) * static_cast<double>(v);
  for (float v : image) kept += static_cast<double>(v) * static_cast<double>(v);
  return 1 - kept / all;
}

// The table of the literature sheet, measured there on independent normal values, 512 x 512; and a plain decomposition
// by singular values in as many bytes is worse by more than a factor of two at every level.
TEST(BitStackDecomposition, ErrorsOfNormalMatrices) {
  const struct {
    uint32_t k;
    double errors[6];
  } known[] = {{1, {.362, .130, .058, .033, .022, .017}},
               {4, {.355, .125, .054, .028, .018, .013}},
               {16, {.325, .106, .040, .017, .009, .005}}};
  constexpr size_t kSize = 512;
  for (const auto& row : known) {
    const std::vector<float> w = normal(kSize * kSize, 3);
    std::vector<float> rest = w;
    Ledger ledger;
    const BlockLayout layout{kSize, kSize, row.k};
    const Decomposition made = decompose(rest, layout, {}, 6, ledger);
    ASSERT_EQ(made.blocks.size(), 6u);
    for (size_t i = 0; i < 6; ++i) {
      const double error = made.errors[i + 1] / made.errors[0];
      // The sheet gives three decimals.
      EXPECT_NEAR(error, row.errors[i], 0.05 * row.errors[i] + 0.0005) << "k " << row.k << ", blocks " << i + 1;
      if (row.k != 1 || i > 2) continue;
      const size_t rank = (i + 1) * layout.bytes() / (2 * 2 * kSize);
      EXPECT_GT(svd_error(w, kSize, kSize, rank), 2 * error) << "blocks " << i + 1;
    }
  }
}

TEST(BitStackDecomposition, ErrorsAreThoseOfTheStoredBlocksAndWeighChannels) {
  const BlockLayout layout{50, 72, 2};
  const std::vector<float> w = normal(50 * 72, 4);
  std::vector<float> squares(72, 1.0f);
  squares[7] = 400.0f;
  const std::vector<float> s = channel_scales(squares);
  EXPECT_NEAR(s[7] / s[8], 20, 1e-3);
  std::vector<float> rest = w;
  Ledger ledger;
  const Decomposition made = decompose(rest, layout, s, 3, ledger);
  for (size_t n = 1; n <= 3; ++n) {
    const std::vector<float> sum = sum_of_blocks(made, layout, n);
    double error = 0;
    for (size_t i = 0; i < w.size(); ++i) error += std::pow(static_cast<double>((w[i] - sum[i]) * s[i % 72]), 2);
    EXPECT_NEAR(error, made.errors[n], 1e-4 * made.errors[n]) << n;
  }
  // A channel whose inputs are large is kept better than the others.
  const std::vector<float> sum = sum_of_blocks(made, layout, 3);
  double heavy = 0, others = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    (i % 72 == 7 ? heavy : others) += std::pow(static_cast<double>(w[i] - sum[i]), 2);
  }
  EXPECT_LT(heavy, others / 71 / 4);
}

// One row, one column, sides that are no multiple of a stripe, of 32 or of the runs that products go by; and zeros,
// whose sign is plus in the bits as in what is left over.
TEST(BitStackDecomposition, AnyShapeIsTheSumOfItsBlocks) {
  const std::tuple<uint64_t, uint64_t, uint32_t> shapes[] = {{1, 1, 1},    {1, 70, 4},  {70, 1, 4},    {17, 33, 2},
                                                             {33, 300, 3}, {65, 31, 1}, {15, 515, 16}, {130, 47, 16}};
  for (const auto& [rows, columns, k] : shapes) {
    const std::string shape = fmt::format("{} x {}, k {}", rows, columns, k);
    const BlockLayout layout{rows, columns, k};
    std::vector<float> w = normal(rows * columns, rows + columns);
    for (size_t i = 0; i < w.size(); i += 5) w[i] = 0;
    w[0] = 1;
    const std::vector<float> s = channel_scales(normal_squares(columns));
    std::vector<float> rest = w;
    Ledger ledger;
    const Decomposition made = decompose(rest, layout, s, 3, ledger);
    EXPECT_EQ(made.vectors, std::min<uint64_t>({k, rows, columns})) << shape;
    ASSERT_FALSE(made.blocks.empty()) << shape;
    ASSERT_EQ(made.errors.size(), made.blocks.size() + 1) << shape;
    for (size_t n = 1; n <= made.blocks.size(); ++n) {
      const BlockLayout stored{rows, columns, made.vectors};
      ASSERT_EQ(made.blocks[n - 1].size(), stored.bytes()) << shape;
      const std::vector<float> sum = sum_of_blocks(made, layout, n);
      double error = 0;
      for (size_t i = 0; i < w.size(); ++i) error += std::pow(static_cast<double>((w[i] - sum[i]) * s[i % columns]), 2);
      EXPECT_NEAR(error, made.errors[n], 1e-3 * made.errors[n] + 1e-9 * made.errors[0]) << shape << ", block " << n;
      EXPECT_LT(made.errors[n], made.errors[n - 1]) << shape;
    }
    // One row or column is of rank one: its magnitudes fit in one block but for the rounding of two factors to half.
    if (rows == 1 || columns == 1) {
      EXPECT_LT(made.errors[1], 1e-6 * made.errors[0]) << shape;
    }
  }
}

TEST(BitStackDecomposition, BlocksThatGainNothingAreNotMade) {
  Ledger ledger;
  std::vector<float> tiny = normal(40 * 24, 8);
  for (float& v : tiny) v *= 1e-13f;  // factors near the smallest halves
  const Decomposition made = decompose(tiny, {40, 24, 2}, {}, 12, ledger);
  EXPECT_LT(made.blocks.size(), 12u);
  ASSERT_EQ(made.errors.size(), made.blocks.size() + 1);
  for (size_t n = 1; n < made.errors.size(); ++n) EXPECT_LT(made.errors[n], made.errors[n - 1]);
}

TEST(BitStackDecomposition, ScalesOfSilentAndLoudChannelsHaveABound) {
  std::vector<float> squares(64, 1.0f);
  squares[3] = 0;
  squares[4] = 1e20f;
  const std::vector<float> s = channel_scales(squares);
  EXPECT_FLOAT_EQ(s[3], 1e-3f);
  EXPECT_FLOAT_EQ(s[4], 1e3f);
  EXPECT_TRUE(channel_scales({}).empty());
}

TEST(BitStackDecomposition, OddCases) {
  Ledger ledger;
  std::vector<float> zeros(40 * 24), thin = normal(3 * 64, 5), bad = normal(32 * 32, 6);
  EXPECT_TRUE(decompose(zeros, {40, 24, 4}, {}, 4, ledger).blocks.empty());
  EXPECT_EQ(decompose(thin, {3, 64, 16}, {}, 2, ledger).vectors, 3u);
  bad[100] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(error_of([&] { decompose(bad, {32, 32, 1}, {}, 2, ledger); }), HasSubstr("expected finite weights"));
  std::vector<float> huge(32 * 32, 1e10f);
  EXPECT_THAT(error_of([&] { decompose(huge, {32, 32, 1}, {}, 1, ledger); }), HasSubstr("65504"));
  // Two factors share the size of the weights: halves would not hold all of it in one.
  std::vector<float> large = normal(64 * 64, 10);
  for (float& v : large) v *= 3e4f;
  const Decomposition of_large = decompose(large, {64, 64, 1}, {}, 2, ledger);
  EXPECT_LT(of_large.errors[2], 0.2 * of_large.errors[0]);
  // Whoever makes the blocks, they are the same.
  std::vector<float> a = normal(64 * 64, 7), b = a;
  EXPECT_EQ(decompose(a, {64, 64, 2}, {}, 3, ledger).blocks, decompose(b, {64, 64, 2}, {}, 3, ledger).blocks);
}

}  // namespace
}  // namespace mneme::bitstack
