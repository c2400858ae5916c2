#include "tensor/bitstack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/half.h"
#include "base/philox.h"
#include "base/test_error.h"

namespace mneme::bitstack {
namespace {

using ::testing::HasSubstr;

/// A block with given signs and factors that halves hold exactly.
struct TestBlock {
  TestBlock(uint64_t rows, uint64_t columns, uint64_t k, uint64_t seed)
      : layout{rows, columns, k}, bytes(layout.bytes()) {
    PhiloxStream random(seed);
    signs.resize(rows * columns);
    for (float& s : signs) s = random.next_below(2) == 0 ? -1.0f : 1.0f;
    pack_signs(layout, signs.data(), bytes.data());
    const auto put = [&](std::vector<float>& values, uint64_t n, uint64_t offset, uint64_t stride) {
      values.resize(k * n);
      for (uint64_t i = 0; i < k * n; ++i) {
        values[i] = static_cast<float>(static_cast<int>(random.next_below(33)) - 16) / 8;
        const uint16_t half = f32_to_f16(values[i]);
        std::memcpy(bytes.data() + offset + 2 * (i / n * stride + i % n), &half, sizeof half);
      }
    };
    put(u, rows, layout.u_offset(), layout.padded_rows());
    put(v, columns, layout.v_offset(), layout.padded_columns());
  }
  float at(uint64_t r, uint64_t c) const {
    float sum = 0;
    for (uint64_t j = 0; j < layout.vectors; ++j) sum += u[j * layout.rows + r] * v[j * layout.columns + c];
    return signs[r * layout.columns + c] * sum;
  }

  BlockLayout layout;
  std::vector<std::byte> bytes;
  std::vector<float> signs, u, v;
};

TEST(BitStack, BlocksComeBackForAllShapes) {
  for (const auto& [rows, columns, k] :
       {std::tuple{1, 1, 1}, {16, 32, 2}, {17, 33, 1}, {48, 64, 16}, {50, 7, 3}, {32, 96, 4}}) {
    const TestBlock block(static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), static_cast<uint64_t>(k), 7);
    std::vector<float> out(static_cast<size_t>(rows * columns));
    decode_block(block.layout, block.bytes.data(), 0, block.layout.rows, out.data());
    for (uint64_t r = 0; r < block.layout.rows; ++r) {
      for (uint64_t c = 0; c < block.layout.columns; ++c) {
        ASSERT_EQ(out[r * block.layout.columns + c], block.at(r, c))
            << rows << " x " << columns << ": " << r << ", " << c;
      }
    }
  }
}

TEST(BitStack, ABlockTakesABitAWeightAndItsFactors) {
  EXPECT_EQ((BlockLayout{512, 512, 1}.bytes()), 512u * 512 / 8 + 2 * (512 + 512));
  EXPECT_EQ((BlockLayout{512, 1024, 16}.bytes()), 512u * 1024 / 8 + 2 * 16 * (512 + 1024));
  EXPECT_EQ(vectors_for(4096, 4096), 16u);
  EXPECT_EQ(vectors_for(1024, 1024), 4u);
  EXPECT_EQ(vectors_for(64, 64), 1u);
}

TEST(BitStack, AnyNumberOfBlocksIsAMatrixAndAnyRectangleOfItDecodes) {
  const TestBlock a(40, 72, 2, 1), b(40, 72, 2, 2);
  std::vector<std::byte> memory(a.bytes.size() + b.bytes.size());
  std::memcpy(memory.data(), b.bytes.data(), b.bytes.size());  // the order in memory is not that of the levels
  std::memcpy(memory.data() + b.bytes.size(), a.bytes.data(), a.bytes.size());
  BlockList list{2, 0, memory.data(), {b.bytes.size(), 0}};
  TensorView view{DType::kBitStack, Shape{40, 72}, nullptr, 48};
  view.blocks = &list;
  std::vector<float> tile(10 * 20, 9.0f);
  for (uint32_t n = 0; n <= 2; ++n) {
    list.n_blocks = n;
    weight_format(DType::kBitStack).decode_tile(view, {23, 7, 30, 20}, tile.data(), 20);
    for (uint64_t r = 0; r < 7; ++r) {
      for (uint64_t c = 0; c < 20; ++c) {
        const float want = (n > 0 ? a.at(23 + r, 30 + c) : 0.0f) + (n > 1 ? b.at(23 + r, 30 + c) : 0.0f);
        ASSERT_EQ(tile[r * 20 + c], want) << n;
      }
    }
  }
}

TEST(BitStack, DamagedDirectoriesAreRefused) {
  const uint64_t bytes = BlockLayout{32, 64, 2}.bytes();
  const auto check = [&](std::vector<std::byte> directory, uint64_t columns = 64) {
    const TensorView view{DType::kBitStack, Shape{32, columns}, directory.data(), directory.size()};
    weight_format(DType::kBitStack).validate(view, "w");
  };
  const Entry good[] = {{100, 1}, {100 + bytes, 2}};
  EXPECT_NO_THROW(check(write_directory(2, good)));
  const TensorView view{DType::kBitStack, Shape{32, 64}, nullptr, 48};
  const Entry overlapping[] = {{100, 1}, {99 + bytes, 2}}, backwards[] = {{bytes, 1}, {0, 2}};
  const Entry endless[] = {{UINT64_MAX - 5, 1}};
  EXPECT_THAT(error_of([&] { check(write_directory(2, overlapping)); }), HasSubstr("overlap"));
  EXPECT_THAT(error_of([&] { check(write_directory(2, backwards)); }), HasSubstr("overlap"));
  EXPECT_THAT(error_of([&] { check(write_directory(2, endless)); }), HasSubstr("overlap"));
  EXPECT_THAT(error_of([&] { check(write_directory(0, good)); }), HasSubstr("vectors outside"));
  EXPECT_THAT(error_of([&] { check(write_directory(17, good)); }), HasSubstr("vectors outside"));
  EXPECT_THAT(error_of([&] { check(write_directory(2, std::vector<Entry>(65))); }), HasSubstr("more than 64"));
  std::vector<std::byte> odd = write_directory(2, good);
  odd.pop_back();
  EXPECT_THAT(error_of([&] { check(odd); }), HasSubstr("no whole entries"));
  EXPECT_THAT(error_of([&] { check(write_directory(2, good), uint64_t{1} << 31); }), HasSubstr("2^30"));
  std::vector<float> row(64);
  EXPECT_THAT(error_of([&] {
                weight_format(DType::kBitStack).decode_tile(view, {0, 1, 0, 64}, row.data(), 64);
              }),
              HasSubstr("not at hand"));
}

}  // namespace
}  // namespace mneme::bitstack
