#include "tensor/bipolar.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "base/half.h"
#include "base/philox.h"
#include "tensor/dtype.h"

namespace mneme::bipolar {
namespace {

DType type_of(int bits) {
  return static_cast<DType>(static_cast<uint32_t>(DType::kBipolar1) + static_cast<uint32_t>(bits) - 1);
}

std::vector<std::byte> encode(int bits, const std::vector<float>& w) {
  std::vector<std::byte> blocks(row_bytes(type_of(bits), w.size()));
  dtype_info(type_of(bits)).encode(w.data(), nullptr, blocks.data(), w.size());
  return blocks;
}

std::vector<float> decode(int bits, const std::vector<std::byte>& blocks, size_t n) {
  std::vector<float> w(n);
  dtype_info(type_of(bits)).decode(blocks.data(), w.data(), n);
  return w;
}

TEST(Bipolar, SignedIntegersGoThereAndBack) {
  for (int bits = 1; bits <= kMostBits; ++bits) {
    for (int v = -(1 << (bits - 1)); v < 1 << (bits - 1); ++v) {
      const unsigned code = from_signed(bits, v);
      EXPECT_EQ(to_signed(bits, code), v);
      EXPECT_EQ(value(bits, code), 2 * v + 1);
      int sum = 0;
      for (int i = 0; i < bits; ++i) sum += (2 * static_cast<int>(code >> i & 1) - 1) << i;
      EXPECT_EQ(sum, value(bits, code));
    }
  }
}

TEST(Bipolar, ValuesOfTheGridComeBackAtEveryWidth) {
  PhiloxStream random(1);
  for (int bits = 1; bits <= kMostBits; ++bits) {
    std::vector<float> w(2 * kGroup);
    for (float& v : w)
      v = 0.25f * static_cast<float>(value(bits, static_cast<unsigned>(random.next_below(uint64_t{1} << bits))));
    w[5] = w[kGroup + 7] = 0.25f * static_cast<float>(largest(bits));
    EXPECT_EQ(decode(bits, encode(bits, w), w.size()), w) << bits;
    EXPECT_EQ(row_bytes(type_of(bits), 1024), 128u * static_cast<size_t>(bits) + 16);
  }
  const std::vector<float> zeros(kGroup, 0.0f);
  EXPECT_EQ(decode(3, encode(3, zeros), kGroup), zeros);
}

TEST(Bipolar, UpperPlanesAreTheNumbersCutOff) {
  PhiloxStream random(2);
  std::vector<float> w(kGroup);
  for (float& v : w) v = random.next_normal();
  const std::vector<std::byte> all = encode(8, w);
  const std::vector<float> full = decode(8, all, kGroup);
  for (int fewer = 1; fewer < 8; ++fewer) {
    std::vector<std::byte> cut(row_bytes(type_of(fewer), kGroup));
    drop_planes(8, fewer, all.data(), cut.data(), kGroup);
    const std::vector<float> got = decode(fewer, cut, kGroup);
    // b = 2^d b' + a number of d bits: the error is at most 2^d - 1 steps of the full scale.
    uint16_t half = 0;
    std::memcpy(&half, all.data(), sizeof half);
    const float unit = f16_to_f32(half);
    for (size_t i = 0; i < kGroup; ++i) {
      const float steps = full[i] / unit;  // an odd integer; its code without the low bits is what must be there
      const auto code = static_cast<unsigned>(std::lround((steps + 255) / 2)) >> (8 - fewer);
      EXPECT_EQ(got[i], std::ldexp(unit, 8 - fewer) * static_cast<float>(value(fewer, code)));
      EXPECT_LE(std::abs(got[i] - full[i]), unit * static_cast<float>((1 << (8 - fewer)) - 1) * 1.001f) << fewer;
    }
  }
}

}  // namespace
}  // namespace mneme::bipolar
