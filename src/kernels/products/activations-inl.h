#pragma once

#include <bit>
#include <cmath>
#include <limits>

#include "kernels/products/product_table.h"

// Activations in the forms that products read; the loops are plain so that the compiler vectorises them for each
// target, and every target gives the same bits. Compiled once a target.
namespace mneme::kernels::products::MNEME_TARGET {

/// See Int8Activations for the format. Above zero, `limit` takes the place of the block's largest value in the choice
/// of the scale, and values beyond it become it.
inline void quantize_block(const float* x, float limit, int8_t* levels, float* anchor, int16_t* half_sums) {
  uint32_t words[kBlockColumns];
  std::memcpy(words, x, sizeof words);
  uint32_t largest = 0;
  for (size_t i = 0; i < kBlockColumns; ++i) {
    const uint32_t magnitude = words[i] & 0x7fffffffu;
    largest = magnitude > largest ? magnitude : largest;
  }
  float clamped[kBlockColumns];
  if (limit > 0 && largest < 0x7f800000u) {
    for (size_t i = 0; i < kBlockColumns; ++i) clamped[i] = x[i] > limit ? limit : x[i] < -limit ? -limit : x[i];
    x = clamped;
    largest = std::bit_cast<uint32_t>(limit);
  }
  // The exponent e of the scale: that of the largest value less 6, one more when its mantissa would round to 128.
  constexpr int kLowest = -120, kHighest = 104;  // keep 2^-e and the anchor normal
  const int e = std::max(static_cast<int>((largest + 0x1ffffu) >> 23) - 133, kLowest);
  if (e > kHighest) {
    std::memset(levels, 0, kBlockColumns);
    *anchor = std::numeric_limits<float>::quiet_NaN();
    half_sums[0] = half_sums[1] = 0;
    return;
  }
  *anchor = std::bit_cast<float>((static_cast<uint32_t>(e + 150) << 23) | 0x400000u);
  const float inverse = std::bit_cast<float>(static_cast<uint32_t>(127 - e) << 23);
  int32_t rounded[kBlockColumns];
  for (size_t i = 0; i < kBlockColumns; ++i) {
    constexpr float kRound = 0x1.8p23f;  // adding it leaves the nearest integer in the low bits
    rounded[i] =
        static_cast<int32_t>(std::bit_cast<uint32_t>(x[i] * inverse + kRound) - std::bit_cast<uint32_t>(kRound));
  }
  for (size_t i = 0; i < kBlockColumns; ++i) levels[i] = static_cast<int8_t>(rounded[i]);
  for (size_t half = 0; half < 2; ++half) {
    int32_t sum = 0;
    for (size_t i = 0; i < 16; ++i) sum += rounded[16 * half + i];
    half_sums[half] = static_cast<int16_t>(sum);
  }
}

inline void quantize(const float* x, size_t n_blocks, float limit, int8_t* levels, float* anchors, int16_t* half_sums) {
  for (size_t b = 0; b < n_blocks; ++b) {
    quantize_block(x + b * kBlockColumns, limit, levels + b * kBlockColumns, anchors + b, half_sums + 2 * b);
  }
}

inline void to_bf16(const float* x, size_t n, uint16_t* out) {
  for (size_t i = 0; i < n; ++i) {
    const uint32_t word = std::bit_cast<uint32_t>(x[i]);
    const uint32_t rounded = (word + 0x7fffu + ((word >> 16) & 1u)) >> 16;
    const uint32_t quiet = (word >> 16) | 64u;
    out[i] = static_cast<uint16_t>((word & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
  }
}

}  // namespace mneme::kernels::products::MNEME_TARGET
