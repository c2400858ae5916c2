#include "kernels/bitstack_product.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "base/half.h"
#include "kernels/matmul_test_data.h"
#include "kernels/op_check.h"
#include "tensor/bitstack.h"

namespace mneme::kernels {
namespace {

/// A matrix of random signs and factors; every block half as large as the one before.
struct TestStack {
  TestStack(size_t n_rows, size_t n_columns, uint32_t k, uint32_t n, uint64_t seed)
      : layout{n_rows, n_columns, k}, memory(n * layout.bytes()) {
    TestRandom random(seed);
    list.vectors = k;
    list.n_blocks = n;
    list.base = memory.data();
    std::vector<float> signs(n_rows * n_columns);
    for (uint32_t i = 0; i < n; ++i) {
      std::byte* block = memory.data() + i * layout.bytes();
      list.offsets.push_back(i * layout.bytes());
      for (float& s : signs) s = random.real();
      bitstack::pack_signs(layout, signs.data(), block);
      const auto fill = [&](uint64_t offset, uint64_t count) {
        for (uint64_t h = 0; h < count; ++h) {
          const uint16_t half = f32_to_f16((0.6f + 0.5f * random.real()) / static_cast<float>(1u << i));
          std::memcpy(block + offset + 2 * h, &half, sizeof half);
        }
      };
      fill(layout.u_offset(), k * layout.padded_rows());  // what is padding is filled too: it must not matter
      fill(layout.v_offset(), k * layout.padded_columns());
    }
  }
  Matrix matrix() const { return {DType::kBitStack, Layout::kPlain, layout.rows, layout.columns, nullptr, 0, &list}; }
  std::vector<float> decoded(size_t block) const {
    std::vector<float> out(layout.rows * layout.columns);
    bitstack::decode_block(layout, list.block(block), 0, layout.rows, out.data());
    return out;
  }
  float half(uint64_t offset, size_t block, uint64_t i) const {
    uint16_t bits = 0;
    std::memcpy(&bits, list.block(block) + offset + 2 * i, sizeof bits);
    return f16_to_f32(bits);
  }

  bitstack::BlockLayout layout;
  std::vector<std::byte> memory;
  bitstack::BlockList list;
};

std::vector<float> run(const Matrix& w, const std::vector<float>& x, const float* bias = nullptr) {
  const size_t n_tokens = x.size() / w.columns;
  std::vector<float> y(n_tokens * w.rows);
  Ledger ledger;
  MatmulInput input(ledger);
  input.set(x.data(), n_tokens, w.columns);
  matmul(w, input, bias, y.data(), w.rows);
  const DType types[] = {w.dtype};
  EXPECT_LE(ledger.peak(Tier::kRam), matmul_scratch_bytes(n_tokens, w.columns, types));
  return y;
}

/// What products by signs should give: every row z = v * x in 8 bits, the rest in double.
double by_signs(const TestStack& stack, const std::vector<std::vector<float>>& blocks, const std::vector<float>& x,
                size_t token, size_t row, double* size) {
  const bitstack::BlockLayout& layout = stack.layout;
  double sum = 0;
  *size = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {
    for (uint64_t j = 0; j < layout.vectors; ++j) {
      std::vector<float> z(layout.padded_columns(), 0.0f);
      for (uint64_t c = 0; c < layout.columns; ++c) {
        z[c] = stack.half(layout.v_offset(), i, j * layout.padded_columns() + c) * x[token * layout.columns + c];
      }
      const std::vector<double> seen = seen_activations(z, TestForm::kInt8);
      const double u = static_cast<double>(stack.half(layout.u_offset(), i, j * layout.padded_rows() + row));
      for (uint64_t c = 0; c < layout.columns; ++c) {
        const double sign = blocks[i][row * layout.columns + c] >= 0 ? 1 : -1;  // the factors are positive
        sum += u * sign * seen[c];
        *size += std::abs(u * seen[c]);
      }
    }
  }
  return sum;
}

const std::tuple<size_t, size_t, uint32_t, uint32_t> kShapes[] = {{16, 32, 1, 1},   {33, 96, 1, 4},   {100, 520, 2, 3},
                                                                  {64, 256, 16, 2}, {130, 288, 4, 8}, {5, 40, 3, 1}};

TEST(BitStackProduct, SignsAreTheIntegerProductOfTheRoundedRows) {
  on_every_target([] {
    for (const auto& [rows, columns, k, n] : kShapes) {
      const TestStack stack(rows, columns, k, n, rows);
      std::vector<std::vector<float>> blocks;
      for (uint32_t i = 0; i < n; ++i) blocks.push_back(stack.decoded(i));
      const size_t n_tokens = wants_signs(stack.matrix(), 2) ? 2 : 1;
      ASSERT_TRUE(wants_signs(stack.matrix(), n_tokens));
      const std::vector<float> x = test_activations(n_tokens, columns, 9);
      const std::vector<float> bias(rows, 1.5f), y = run(stack.matrix(), x, bias.data());
      EXPECT_TRUE(close_to(y,
                           [&](size_t i) {
                             double size = 0;
                             const double value =
                                 by_signs(stack, blocks, x, i / stack.layout.rows, i % stack.layout.rows, &size) + 1.5;
                             return Expected{value, 1e-5 * (size + 1.5)};
                           }))
          << rows << " x " << columns << ", k " << k << ", n " << n;
    }
  });
}

TEST(BitStackProduct, TilesAreTheBf16ProductOfTheSum) {
  on_every_target([] {
    for (const auto& [rows, columns, k, n] : kShapes) {
      const TestStack stack(rows, columns, k, n, rows + 1);
      constexpr size_t kTokens = 300;
      ASSERT_FALSE(wants_signs(stack.matrix(), kTokens));
      std::vector<double> w(rows * columns);
      for (uint32_t i = 0; i < n; ++i) {
        const std::vector<float> block = stack.decoded(i);
        for (size_t j = 0; j < w.size(); ++j) w[j] += static_cast<double>(block[j]);
      }
      const std::vector<float> x = test_activations(kTokens, columns, 10);
      const std::vector<double> seen = seen_activations(x, TestForm::kBf16);
      const size_t width = columns;
      EXPECT_TRUE(close_to(run(stack.matrix(), x),
                           [&](size_t i) {
                             double value = 0, size = 0;
                             for (size_t c = 0; c < width; ++c) {
                               const double product =
                                   w[i % stack.layout.rows * width + c] * seen[i / stack.layout.rows * width + c];
                               value += product;
                               size += std::abs(product);
                             }
                             return Expected{value, 0x1p-8 * size + 1e-6};  // the sum of blocks is rounded to bfloat16
                           }))
          << rows << " x " << columns << ", k " << k << ", n " << n;
    }
  });
}

TEST(BitStackProduct, BothWaysAgreeWithinAHundredth) {
  const TestStack stack(256, 512, 2, 4, 3);
  const std::vector<float> x = test_activations(300, 512, 11);
  const std::vector<float> tiles = run(stack.matrix(), x);
  double difference = 0, norm = 0;
  for (size_t t = 0; t < 300; t += 37) {
    const std::vector<float> signs =
        run(stack.matrix(), {x.begin() + static_cast<long>(t * 512), x.begin() + static_cast<long>((t + 1) * 512)});
    for (size_t r = 0; r < 256; ++r) {
      difference += std::pow(static_cast<double>(signs[r] - tiles[t * 256 + r]), 2);
      norm += std::pow(static_cast<double>(tiles[t * 256 + r]), 2);
    }
  }
  EXPECT_LT(std::sqrt(difference / norm), 0.01);
}

TEST(BitStackProduct, TokensOfASmallBatchDoNotDependOnOneAnother) {
  on_every_target([] {
    const TestStack stack(80, 320, 2, 3, 4);
    const std::vector<float> x = test_activations(3, 320, 12), together = run(stack.matrix(), x);
    ASSERT_TRUE(wants_signs(stack.matrix(), 3));
    for (size_t t = 0; t < 3; ++t) {
      const std::vector<float> alone =
          run(stack.matrix(), {x.begin() + static_cast<long>(t * 320), x.begin() + static_cast<long>((t + 1) * 320)});
      EXPECT_EQ(std::memcmp(alone.data(), together.data() + t * 80, 80 * sizeof(float)), 0) << t;
    }
  });
}

TEST(BitStackProduct, FewerBlocksAreASmallerSumAndNoneAreNothing) {
  TestStack stack(32, 64, 1, 3, 5);
  const std::vector<float> x = test_activations(1, 64, 13);
  const std::vector<float> three = run(stack.matrix(), x);
  stack.list.n_blocks = 2;
  const std::vector<float> two = run(stack.matrix(), x);
  EXPECT_NE(three, two);
  stack.list.n_blocks = 0;
  for (float y : run(stack.matrix(), x)) EXPECT_EQ(y, 0.0f);
  for (float y : run(stack.matrix(), test_activations(300, 64, 14))) EXPECT_EQ(y, 0.0f);
}

}  // namespace
}  // namespace mneme::kernels
