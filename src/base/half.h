#pragma once

#include <bit>
#include <cstdint>

namespace mneme {

/// IEEE half precision bits to float; subnormals, infinities and NaN included.
float f16_to_f32(uint16_t bits);

/// Float to IEEE half precision, round to nearest even, overflow to infinity, NaN to 0x7E00 with the sign.
uint16_t f32_to_f16(float value);

/// bfloat16 bits to float: the upper half of the f32 word.
inline float bf16_to_f32(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

/// Float to bfloat16, round to nearest even, NaN kept quiet.
inline uint16_t f32_to_bf16(float value) {
  const uint32_t word = std::bit_cast<uint32_t>(value);
  if ((word & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((word >> 16) | 64u);
  return static_cast<uint16_t>((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
}

}  // namespace mneme
