#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

/// Bipolar integers (arXiv 2409.17870): n-bit codes whose bits count -1 or +1 instead of 0 or 1,
///
///     b(x) = sum over i of (2 x_i - 1) 2^i = 2 u - (2^n - 1),   u: the code read as an unsigned number,
///
/// the odd numbers from -(2^n - 1) to 2^n - 1. All bits are alike, so a product of any widths splits into products of
/// bit-planes, and the upper m planes of an n-bit number are themselves an m-bit number of 2^(n-m) times the scale. A
/// signed integer v of n bits is (b - 1) / 2 with the top bit of its code flipped.
///
/// Stored in blocks of 128 weights: a half-precision scale s, w = s b, then n planes of 16 bytes from the lowest bit
/// on; bit k % 8 of byte k / 8 of a plane belongs to weight k. n + 0.125 bits a weight. There is no zero but s = 0.
namespace mneme::bipolar {

constexpr size_t kGroup = 128;
constexpr int kMostBits = 8;

/// Bits of a bipolar type, 0 for all others.
constexpr int bits_of(DType dtype) {
  if (dtype < DType::kBipolar1 || dtype > DType::kBipolar8) return 0;
  return static_cast<int>(static_cast<uint32_t>(dtype) - static_cast<uint32_t>(DType::kBipolar1)) + 1;
}

constexpr int largest(int bits) {
  return (1 << bits) - 1;
}
constexpr int value(int bits, unsigned code) {
  return 2 * static_cast<int>(code) - largest(bits);
}
/// The code of a signed integer v in [-2^(bits-1), 2^(bits-1)), whose bipolar value is 2 v + 1; and back.
constexpr unsigned from_signed(int bits, int v) {
  return static_cast<unsigned>(v + (1 << (bits - 1)));
}
constexpr int to_signed(int bits, unsigned code) {
  return static_cast<int>(code) - (1 << (bits - 1));
}

/// Scale and codes of a group, s = max|w| / (2^n - 1), or mean|w| for one bit. With importance the scale is the best of
/// several below the rule's.
float choose_codes(int bits, const float* w, const float* importance, uint8_t* codes);

/// Writes the stored form of one group: the scale, rounded to half precision, and the planes of its 128 codes.
void pack_group(int bits, float scale, const uint8_t* codes, std::byte* block);

/// Drops the lowest planes of blocks of `bits`, to `fewer` bits: `n` weights. The result is the stored form of the
/// numbers cut off there, with the scale that makes up for it.
void drop_planes(int bits, int fewer, const std::byte* blocks, std::byte* out, size_t n);

}  // namespace mneme::bipolar
