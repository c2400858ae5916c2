#include "train/optim/block_codes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/philox.h"

namespace mneme::train {
namespace {

TEST(BlockCodes, LevelsAreTheDynamicMap) {
  for (const CodeKind kind : {CodeKind::kSigned, CodeKind::kUnsigned}) {
    const auto& levels = code_levels(kind);
    EXPECT_TRUE(std::is_sorted(levels.begin(), levels.end()));
    EXPECT_EQ(std::adjacent_find(levels.begin(), levels.end()), levels.end());
    EXPECT_EQ(levels.back(), 1.0f);
    EXPECT_EQ(std::count(levels.begin(), levels.end(), 0.0f), 1);
    const auto in = [&](double low, double high) {
      return std::count_if(levels.begin(), levels.end(), [&](float x) { return x > low && x < high; });
    };
    EXPECT_EQ(in(0.1, 0.9999), kind == CodeKind::kSigned ? 64 : 128);
    EXPECT_EQ(in(1e-7, 1e-6), kind == CodeKind::kSigned ? 1 : 2);
  }
  EXPECT_EQ(code_levels(CodeKind::kUnsigned).front(), 0.0f);
  EXPECT_NEAR(code_levels(CodeKind::kSigned).front(), -(1 - 0.45 / 64), 1e-6);
}

/// Every level comes back exactly, and every value in between within the bound of its decade.
TEST(BlockCodes, ErrorBoundOfEachDecade) {
  PhiloxStream random(5);
  for (const CodeKind kind : {CodeKind::kSigned, CodeKind::kUnsigned}) {
    for (const float scale : {1.0f, 3.7e-9f, 812.5f}) {
      std::vector<float> x(kCodeBlock);
      std::vector<uint8_t> codes(kCodeBlock);
      std::vector<float> back(kCodeBlock);
      for (size_t c = 0; c < 256; ++c) x[c] = code_levels(kind)[c] * scale;
      EXPECT_EQ(encode_block(kind, x.data(), 256, codes.data()), scale);
      for (size_t c = 0; c < 256; ++c) EXPECT_EQ(codes[c], c);
      for (int round = 0; round < 50; ++round) {
        for (float& v : x) {
          v = static_cast<float>(std::pow(10.0, -7.5 * random.next_double())) * scale;
          if (kind == CodeKind::kSigned && random.next_below(2) == 0) v = -v;
        }
        x[7] = scale;
        ASSERT_EQ(encode_block(kind, x.data(), 256, codes.data()), scale);
        decode_block(kind, codes.data(), 256, scale, back.data());
        for (size_t i = 0; i < 256; ++i) {
          const double value = std::abs(static_cast<double>(x[i])) / static_cast<double>(scale);
          const int decade = std::clamp(static_cast<int>(std::ceil(std::log10(value))) + 6, 0, 6);
          double bound = 0.45 * std::pow(10.0, decade - 6) / (1 << decade) / (kind == CodeKind::kSigned ? 1 : 2);
          if (value < 1e-7) bound = 3.3e-7;  // below the last decade: 0 or the smallest level
          EXPECT_LE(std::abs(static_cast<double>(x[i]) - static_cast<double>(back[i])),
                    bound * (1 + 1e-4) * static_cast<double>(scale))
              << value;
        }
      }
    }
  }
}

TEST(BlockCodes, ZerosAndVanishingValues) {
  const float zeros[3] = {0, 0, 0}, small[3] = {1.0f, 1e-20f, 0};
  uint8_t codes[3];
  float back[3];
  for (const CodeKind kind : {CodeKind::kSigned, CodeKind::kUnsigned}) {
    decode_block(kind, codes, 3, encode_block(kind, zeros, 3, codes), back);
    for (const float x : back) EXPECT_EQ(x, 0.0f);
  }
  decode_block(CodeKind::kUnsigned, codes, 3, encode_block(CodeKind::kUnsigned, small, 3, codes), back);
  EXPECT_GT(back[1], 0.0f);  // a second moment that is not zero stays above zero
  EXPECT_EQ(back[2], 0.0f);
}

}  // namespace
}  // namespace mneme::train
