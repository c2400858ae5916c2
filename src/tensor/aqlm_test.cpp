#include "tensor/aqlm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "base/philox.h"
#include "base/test_error.h"
#include "tensor/aqlm_test_matrix.h"

namespace mneme::aqlm {
namespace {

using ::testing::HasSubstr;

TEST(Aqlm, EveryCodeLengthComesBack) {
  for (uint32_t bits = 1; bits <= kMostBits; ++bits) {
    for (const auto& [codebooks, group] : {std::pair{1u, 1u}, {2u, 8u}, {3u, 4u}, {8u, 2u}}) {
      if (bits > 10 && codebooks > 2) continue;
      for (Entries entries : {Entries::kBf16, Entries::kInt8}) {
        const TestMatrix m(37, 44, {codebooks, bits, group}, entries, bits);
        weight_format(DType::kAqlm).validate(m.view(), "w");
        std::vector<float> out(37 * 44);
        weight_format(DType::kAqlm).decode_tile(m.view(), {0, 37, 0, 44}, out.data(), 44);
        for (uint64_t i = 0; i < out.size(); ++i) {
          ASSERT_NEAR(out[i], m.at(i / 44, i % 44), 1e-6f)
              << codebooks << "x" << bits << "g" << group << " at " << i / 44 << ", " << i % 44;
        }
      }
    }
  }
}

TEST(Aqlm, AnyRectangleIsThatOfTheWhole) {
  const TestMatrix m(70, 61, {2, 6, 8}, Entries::kInt8, 3);  // neither rows nor columns fill their last unit
  for (const auto& [row, n_rows, column, n_columns] :
       {std::tuple{0, 1, 0, 61}, {31, 2, 0, 8}, {5, 60, 3, 17}, {69, 1, 60, 1}, {32, 32, 8, 16}}) {
    const TileRange range{static_cast<uint64_t>(row), static_cast<uint64_t>(n_rows), static_cast<uint64_t>(column),
                          static_cast<uint64_t>(n_columns)};
    std::vector<float> out(range.n_rows * 64, -1.0f);
    weight_format(DType::kAqlm).decode_tile(m.view(), range, out.data(), 64);
    for (uint64_t r = 0; r < range.n_rows; ++r) {
      for (uint64_t c = 0; c < range.n_columns; ++c) {
        ASSERT_NEAR(out[r * 64 + c], m.at(range.first_row + r, range.first_column + c), 1e-6f);
      }
    }
  }
}

TEST(Aqlm, BytesAreThoseOfTheFormula) {
  // 4096 x 4096: codes, a sixteenth of 16 bits of scale a row, and codebooks; the head and what fills up lines is
  // little.
  const auto bits = [](const Scheme& scheme) { return layout_for(4096, 4096, scheme).bits_per_weight(); };
  EXPECT_NEAR(bits({2, 8, 8}), 2.0 + 16.0 / 4096 + 2 * 256 * 8 * 16 / (4096.0 * 4096), 1e-4);
  EXPECT_NEAR(bits({2, 12, 8}), 3.0 + 16.0 / 4096 + 2 * 4096 * 8 * 16 / (4096.0 * 4096), 1e-4);
  EXPECT_NEAR(bits({1, 4, 1}), 4.0 + 16.0 / 4096, 1e-4);
  // Large codebooks of small matrices are kept as bytes.
  EXPECT_EQ(layout_for(4096, 4096, {2, 8, 8}).entries, Entries::kBf16);
  EXPECT_EQ(layout_for(256, 256, {2, 8, 8}).entries, Entries::kInt8);
  EXPECT_NEAR(layout_for(256, 256, {2, 8, 8}).bits_per_weight(), 2.0 + 16.0 / 256 + 2 * 256 * 8 * 8 / 65536.0, 0.01);
  // Four groups for each vector: 128 x 256 has 4096 groups of 8.
  EXPECT_EQ(capped({2, 12, 8}, 128, 256), (Scheme{2, 10, 8}));
  EXPECT_EQ(capped({2, 12, 8}, 4096, 4096), (Scheme{2, 12, 8}));
  EXPECT_EQ(capped({1, 16, 8}, 4, 16), (Scheme{1, 1, 8}));
}

TEST(Aqlm, OtherShapesAreRefused) {
  const WeightFormat& format = weight_format(DType::kAqlm);
  EXPECT_EQ(format.misfit({4, 16}), "");
  EXPECT_NE(format.misfit({2, 4, 16}), "");
  EXPECT_NE(format.misfit({64}), "");
  EXPECT_NE(format.misfit({4, 8}), "");
}

/// Whatever bytes are damaged: either validate() refuses them or decoding stays inside (the sanitizer builds watch).
TEST(Aqlm, DamageIsRefusedOrHarmless) {
  const TestMatrix good(33, 40, {2, 5, 4}, Entries::kBf16, 4);
  PhiloxStream random(5);
  size_t refused = 0;
  for (int round = 0; round < 300; ++round) {
    std::vector<std::byte> bytes = good.bytes;
    const size_t reach = round % 2 == 0 ? bytes.size() : kFactorsAt;
    for (int i = 0; i < 1 + round % 3; ++i) {
      const size_t at = 8 + random.next_below(reach - 8);
      bytes[at] = bytes[at] ^ static_cast<std::byte>(1u << random.next_below(8));
    }
    TensorView view = good.view();
    view.data = bytes.data();
    try {
      stream_size(DType::kAqlm, bytes, "w");
      weight_format(DType::kAqlm).validate(view, "w");
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
      ++refused;
      continue;
    }
    std::vector<float> row(40);
    for (uint64_t r = 0; r < 33; ++r) decode_row(view, r, row.data());
  }
  EXPECT_GT(refused, 100u);
}

TEST(Aqlm, HeadsAreChecked) {
  const TestMatrix good(33, 40, {2, 5, 4}, Entries::kBf16, 6);
  const auto message = [&](size_t at, auto value) {
    std::vector<std::byte> bytes = good.bytes;
    std::memcpy(bytes.data() + at, &value, sizeof value);
    TensorView view = good.view();
    view.data = bytes.data();
    return error_of([&] { weight_format(DType::kAqlm).validate(view, "w"); });
  };
  EXPECT_THAT(message(kSchemeAt, uint8_t{9}), HasSubstr("9 codebooks"));
  EXPECT_THAT(message(kSchemeAt, uint8_t{3}), HasSubstr("in place of"));
  EXPECT_THAT(message(kSchemeAt + 1, uint8_t{17}), HasSubstr("17 bits"));
  EXPECT_THAT(message(kSchemeAt + 2, uint8_t{3}), HasSubstr("groups of 3"));
  EXPECT_THAT(message(kSchemeAt + 3, uint8_t{2}), HasSubstr("kind 2"));
  EXPECT_THAT(message(kFactorsAt, std::numeric_limits<float>::infinity()), HasSubstr("factor"));
  EXPECT_THAT(message(kBooksAt, uint16_t{0x7f80}), HasSubstr("codebook"));
  EXPECT_THAT(message(good.layout.scales(), uint16_t{0x7c00}), HasSubstr("scale"));
}

}  // namespace
}  // namespace mneme::aqlm
