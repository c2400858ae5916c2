#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/half.h"

/// Access to the fields of stored blocks, shared by the codecs.
namespace mneme::codecs {

/// Elements of a super-block, which shares one pair of half-precision scales.
constexpr size_t kSuper = 256;

inline int load_u8(const std::byte* at) {
  return static_cast<int>(*at);
}
inline int load_i8(const std::byte* at) {
  return static_cast<int8_t>(*at);
}

template <typename T>
T load_as(const std::byte* at) {
  T value{};
  std::memcpy(&value, at, sizeof value);
  return value;
}

inline float load_f16(const std::byte* at) {
  return f16_to_f32(load_as<uint16_t>(at));
}

inline void store_u8(std::byte* at, int value) {
  *at = static_cast<std::byte>(value & 255);
}

template <typename T>
void store_as(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof value);
}

/// Stores a half and returns the value that will be read back.
inline float store_f16(std::byte* at, float value) {
  const uint16_t half = f32_to_f16(value);
  store_as(at, half);
  return f16_to_f32(half);
}

/// 1 / d, or 0 for d = 0: a block of zeros then gets codes of zero.
inline float inverse_or_zero(float d) {
  return d == 0.0f ? 0.0f : 1.0f / d;
}

/// The element of largest magnitude with its sign, the first one on ties; 0 when all are zero.
inline float signed_peak(const float* x, size_t n) {
  float peak = 0.0f, magnitude = 0.0f;
  for (size_t i = 0; i < n; ++i) {
    if (std::fabs(x[i]) > magnitude) {
      magnitude = std::fabs(x[i]);
      peak = x[i];
    }
  }
  return peak;
}

/// Nearest integer of |v| < 2^22 as a float, ties to even. A form that compilers vectorise.
inline float round_small(float v) {
  return (v + 12582912.0f) - 12582912.0f;
}

/// v limited to [lo, hi]; lo for NaN.
inline float limit(float v, float lo, float hi) {
  v = v > lo ? v : lo;
  return v < hi ? v : hi;
}

}  // namespace mneme::codecs
