#include "tensor/aqlm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/half.h"
#include "base/philox.h"
#include "base/test_error.h"

namespace mneme::aqlm {
namespace {

using ::testing::HasSubstr;

/// A matrix of random codes, codebooks and scales.
struct TestMatrix {
  TestMatrix(uint64_t rows, uint64_t columns, const Scheme& scheme, Entries entries, uint64_t seed)
      : layout{rows, columns, scheme, entries}, bytes(layout.bytes()) {
    PhiloxStream random(seed);
    std::vector<float> values(scheme.codebooks * layout.book_values());
    for (float& v : values) v = random.next_normal();
    books = rounded(layout, values);
    scales.resize(rows);
    for (float& s : scales) s = f16_to_f32(f32_to_f16(0.1f * random.next_normal()));
    write_head(layout, books, scales, bytes.data());
    for (uint64_t stripe = 0; stripe < layout.stripes(); ++stripe) {
      for (uint64_t j = 0; j < layout.groups(); ++j) {
        for (uint32_t m = 0; m < scheme.codebooks; ++m) {
          uint16_t run[kStripe];
          for (uint16_t& code : run) {
            code = static_cast<uint16_t>(random.next_below(uint64_t{1} << scheme.bits));
            codes.push_back(code);  // [stripe][group][codebook][row]
          }
          pack_run(scheme.bits, run, bytes.data() + layout.run(stripe, j, m));
        }
      }
    }
  }
  TensorView view() const { return {DType::kAqlm, Shape{layout.rows, layout.columns}, bytes.data(), bytes.size()}; }
  float at(uint64_t r, uint64_t c) const {
    const uint64_t g = layout.scheme.group, n_books = layout.scheme.codebooks;
    float sum = 0;
    for (uint64_t m = 0; m < n_books; ++m) {
      const uint64_t code = codes[((r / kStripe * layout.groups() + c / g) * n_books + m) * kStripe + r % kStripe];
      sum += books.values[(m << layout.scheme.bits | code) * g + c % g];
    }
    return scales[r] * sum;
  }

  Layout layout;
  Codebooks books;
  std::vector<float> scales;
  std::vector<uint16_t> codes;
  std::vector<std::byte> bytes;
};

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
  // 4096 x 4096: codes, a sixteenth of 16 bits of scale a row, and codebooks; the head and what fills up lines is little.
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
  const auto message = [&](size_t at, uint8_t value) {
    std::vector<std::byte> bytes = good.bytes;
    bytes[at] = static_cast<std::byte>(value);
    TensorView view = good.view();
    view.data = bytes.data();
    return error_of([&] { weight_format(DType::kAqlm).validate(view, "w"); });
  };
  EXPECT_THAT(message(kSchemeAt, 9), HasSubstr("9 codebooks"));
  EXPECT_THAT(message(kSchemeAt, 3), HasSubstr("in place of"));
  EXPECT_THAT(message(kSchemeAt + 1, 17), HasSubstr("17 bits"));
  EXPECT_THAT(message(kSchemeAt + 2, 3), HasSubstr("groups of 3"));
  EXPECT_THAT(message(kSchemeAt + 3, 2), HasSubstr("kind 2"));
  EXPECT_THAT(message(kFactorsAt + 3, 0x7f), HasSubstr("factor"));  // 0x7f800000: infinity
  EXPECT_THAT(message(kBooksAt + 1, 0x7f), HasSubstr("codebook"));
  EXPECT_THAT(message(good.layout.scales() + 1, 0x7c), HasSubstr("scale"));
}

}  // namespace
}  // namespace mneme::aqlm
