#include "tensor/dfloat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "base/half.h"
#include "base/parallel.h"
#include "base/philox.h"
#include "base/test_error.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

TensorView bf16_matrix(const std::vector<uint16_t>& words, uint64_t columns) {
  return {DType::kBF16, Shape{words.size() / columns, columns}, reinterpret_cast<const std::byte*>(words.data())};
}

struct Stored {
  std::vector<std::byte> bytes;
  TensorView view;
};

Stored encode(DType dtype, const TensorView& from) {
  Stored stored;
  const auto encoder = weight_format(dtype).encoder(from);
  encoder->write(from, [&](std::span<const std::byte> part) {
    stored.bytes.insert(stored.bytes.end(), part.begin(), part.end());
  });
  EXPECT_EQ(stored.bytes.size(), encoder->bytes());
  EXPECT_EQ(stream_size(dtype, stored.bytes, "w"), stored.bytes.size());
  stored.view = {dtype, from.shape, stored.bytes.data(), stored.bytes.size()};
  weight_format(dtype).validate(stored.view, "w");
  return stored;
}

/// All words again, by rectangles of odd sizes.
std::vector<uint16_t> decode(const TensorView& stored) {
  std::vector<float> values(stored.rows() * stored.columns());
  constexpr uint64_t kRows = 23, kColumns = 301;
  for (uint64_t r = 0; r < stored.rows(); r += kRows) {
    for (uint64_t c = 0; c < stored.columns(); c += kColumns) {
      const TileRange range{r, std::min(kRows, stored.rows() - r), c, std::min(kColumns, stored.columns() - c)};
      weight_format(stored.dtype)
          .decode_tile(stored, range, values.data() + r * stored.columns() + c, stored.columns());
    }
  }
  std::vector<uint16_t> words(values.size());
  for (size_t i = 0; i < words.size(); ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, &values[i], sizeof bits);
    EXPECT_EQ(bits & 0xffffu, 0u);
    words[i] = static_cast<uint16_t>(bits >> 16);
  }
  return words;
}

std::vector<uint16_t> gaussian(size_t n, float sigma, uint64_t seed) {
  PhiloxStream random(seed);
  std::vector<uint16_t> words(n);
  for (uint16_t& word : words) word = f32_to_bf16(sigma * random.next_normal());
  return words;
}

TEST(DFloat, EveryPatternComesBack) {
  std::vector<uint16_t> words(65536);
  std::iota(words.begin(), words.end(), uint16_t{0});
  PhiloxStream random(1);
  for (size_t i = words.size(); i > 1; --i) std::swap(words[i - 1], words[random.next_below(i)]);
  for (DType dtype : {DType::kDf11, DType::kDf12}) {
    for (uint64_t columns : {256, 512, 128, 64, 1024}) {
      EXPECT_EQ(decode(encode(dtype, bf16_matrix(words, columns)).view), words) << columns;
    }
  }
}

TEST(DFloat, OddShapesAndOddValuesComeBack) {
  std::vector<std::vector<uint16_t>> cases = {gaussian(37 * 276, 0.02f, 2), std::vector<uint16_t>(20 * 276, 0),
                                              std::vector<uint16_t>(276, 0x3f80), gaussian(276, 1e30f, 3)};
  cases.push_back(gaussian(16 * 276, 0.02f, 4));
  cases.back()[5] = 0x7f80;  // one infinity among weights
  for (const auto& words : cases) {
    for (DType dtype : {DType::kDf11, DType::kDf12}) {
      const Stored stored = encode(dtype, bf16_matrix(words, 276));
      EXPECT_EQ(decode(stored.view), words);
      // From one lossless form to the other and back to the same bytes.
      const DType other = dtype == DType::kDf11 ? DType::kDf12 : DType::kDf11;
      EXPECT_EQ(encode(dtype, encode(other, stored.view).view).bytes, stored.bytes);
    }
  }
}

TEST(DFloat, SizeIsThatOfTheEntropy) {
  const std::vector<uint16_t> words = gaussian(size_t{1} << 20, 0.02f, 5);
  std::array<uint64_t, 256> counts{};
  for (uint16_t word : words) ++counts[(word >> 7) & 255];
  double entropy = 0, mean = 0;
  const auto lengths = dfloat::code_lengths(counts);
  for (size_t e = 0; e < 256; ++e) {
    const double p = static_cast<double>(counts[e]) / static_cast<double>(words.size());
    if (p > 0) entropy -= p * std::log2(p);
    mean += p * lengths[e];
  }
  EXPECT_NEAR(entropy, 2.545, 0.01);
  EXPECT_NEAR(mean, 2.591, 0.01);
  EXPECT_TRUE(dfloat::is_complete(lengths));
  const TensorView matrix = bf16_matrix(words, 1024);
  const auto bits = [&](DType dtype) {
    return 8.0 * static_cast<double>(encode(dtype, matrix).bytes.size()) / static_cast<double>(words.size());
  };
  EXPECT_LT(bits(DType::kDf11), 10.75);
  EXPECT_LT(bits(DType::kDf12), 0.751 * 16);
}

TEST(DFloat, CodesStayShort) {
  std::array<uint64_t, 256> counts{};
  uint64_t a = 1, b = 1;
  for (size_t s = 0; s < 80; ++s) {  // Fibonacci numbers: an unlimited code would be as long as there are symbols
    counts[s] = a;
    std::swap(a, b);
    b += a;
  }
  const auto lengths = dfloat::code_lengths(counts);
  EXPECT_LE(*std::max_element(lengths.begin(), lengths.end()), dfloat::kMaxCodeBits);
  EXPECT_TRUE(dfloat::is_complete(lengths));
  counts.fill(1);
  EXPECT_EQ(dfloat::code_lengths(counts)[17], 8);
}

TEST(DFloat, AnyThreadsGiveTheSameBytes) {
  const std::vector<uint16_t> words = gaussian(100 * 512, 0.02f, 6);
  const int before = n_threads();
  for (DType dtype : {DType::kDf11, DType::kDf12}) {
    set_n_threads(1);
    const std::vector<std::byte> one = encode(dtype, bf16_matrix(words, 512)).bytes;
    set_n_threads(3);
    EXPECT_EQ(encode(dtype, bf16_matrix(words, 512)).bytes, one);
  }
  set_n_threads(before);
}

TEST(DFloat, OtherFloatsAreRefused) {
  std::vector<float> values(16 * 64, 0.5f);
  const TensorView matrix{DType::kF32, Shape{16, 64}, reinterpret_cast<const std::byte*>(values.data())};
  (void)encode(DType::kDf11, matrix);
  values[77] = 0.1f;
  EXPECT_THROW((void)weight_format(DType::kDf11).encoder(matrix), Error);
  EXPECT_THROW((void)weight_format(DType::kDf12).encoder(matrix), Error);
  EXPECT_NE(weight_format(DType::kDf11).misfit(Shape{16, 6}), "");
  EXPECT_NE(weight_format(DType::kDf11).misfit(Shape{16}), "");
  EXPECT_EQ(weight_format(DType::kDf11).misfit(Shape{3, 8}), "");
}

TEST(DFloat, EscapesLieInTheOrderOfTheirPlaces) {
  std::vector<uint16_t> words = gaussian(16 * 256, 0.02f, 9);
  words[3] = words[900] = 0x7f00;
  Stored stored = encode(DType::kDf12, bf16_matrix(words, 256));
  std::byte* const last = stored.bytes.data() + stored.bytes.size() - dfloat::kDf12Escape;
  std::swap_ranges(last, last + dfloat::kDf12Escape, last - dfloat::kDf12Escape);
  EXPECT_THAT(error_of([&] { weight_format(DType::kDf12).validate(stored.view, "w"); }), HasSubstr("out of order"));
}

/// The table is the code: each window begins with as many whole codes as fit, up to the most.
TEST(DFloat, TheTableSaysWhatWindowsBeginWith) {
  std::array<uint64_t, 256> counts{};
  for (size_t e = 100; e < 140; ++e)
    counts[e] = 1 + (size_t{1} << 20) / ((e - 118) * (e - 118) * (e - 118) * (e - 118) + 1);
  std::array<uint8_t, 256> alone{};
  alone[7] = 1;
  for (const auto& lengths : {dfloat::code_lengths(counts), alone}) {
    const auto codes = dfloat::canonical_codes(lengths);
    auto table = std::make_unique<dfloat::DecodeTable>();
    dfloat::fill_table(lengths, *table);
    for (size_t window = 0; window < dfloat::kTableSize / (lengths == alone ? 2 : 1); ++window) {
      uint64_t want = 0, n = 0;
      unsigned used = 0;
      for (bool found = true; found && n < dfloat::kMostCodes;) {
        found = false;
        for (size_t e = 0; e < 256 && !found; ++e) {
          if (lengths[e] == 0 || used + lengths[e] > dfloat::kMaxCodeBits) continue;
          if ((window >> (dfloat::kMaxCodeBits - used - lengths[e]) & ((1u << lengths[e]) - 1)) != codes[e]) continue;
          want |= uint64_t{e} << (dfloat::kEntryCodes + 8 * n++);
          used += lengths[e];
          found = true;
        }
      }
      ASSERT_EQ((*table)[window], want | n << dfloat::kEntryCount | used) << window;
    }
  }
}

/// Whatever bytes are damaged: either validate() refuses them or decoding stays inside (the sanitizer builds watch).
TEST(DFloat, DamageIsRefusedOrHarmless) {
  const std::vector<uint16_t> words = gaussian(33 * 300, 0.02f, 7);
  PhiloxStream random(8);
  size_t refused = 0;
  for (DType dtype : {DType::kDf11, DType::kDf12}) {
    const Stored good = encode(dtype, bf16_matrix(words, 300));
    for (int round = 0; round < 300; ++round) {
      std::vector<std::byte> bytes = good.bytes;
      const size_t reach = round % 3 == 0 ? bytes.size() : 600;
      for (int i = 0; i < 1 + round % 3; ++i) {
        bytes[kStreamHead + random.next_below(reach - kStreamHead)] = static_cast<std::byte>(random.next_u32());
      }
      TensorView view = good.view;
      view.data = bytes.data();
      try {
        weight_format(dtype).validate(view, "w");
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
        ++refused;
        continue;
      }
      std::vector<float> row(300);
      for (uint64_t r = 0; r < 33; ++r) decode_row(view, r, row.data());
    }
    EXPECT_THROW((void)stream_size(dtype, std::span(good.bytes).first(good.bytes.size() - 1), "w"), Error);
    EXPECT_THROW((void)stream_size(dtype, std::span(good.bytes).first(7), "w"), Error);
  }
  EXPECT_GT(refused, 150u);
}

}  // namespace
}  // namespace mneme
