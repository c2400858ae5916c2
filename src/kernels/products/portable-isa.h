#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/half.h"
#include "kernels/products/format.h"

namespace mneme::kernels::products::MNEME_TARGET {

/// The definition of every operation of the kernels, in loops over the 16 rows. Runs on any processor; compilers turn
/// the loops into what vectors the baseline has (NEON on 64-bit Arm).
struct Isa {
  static constexpr size_t kStripes = 1;
  static constexpr size_t kInt8Tokens = 4;
  static constexpr size_t kFloatTokens = 4;
  static constexpr bool kSignedWide = false;

  struct Bytes {
    uint8_t v[kVectorBytes];
  };
  struct Ints {
    int32_t v[kStripeRows];
  };
  struct Floats {
    float v[kStripeRows];
  };

  static MNEME_INLINE Bytes load_bytes(const uint8_t* p) {
    Bytes out;
    std::memcpy(out.v, p, sizeof out.v);
    return out;
  }
  static MNEME_INLINE void store_bytes(uint8_t* p, const Bytes& v) { std::memcpy(p, v.v, sizeof v.v); }
  static MNEME_INLINE Bytes mask(Bytes v, uint8_t bits) {
    for (uint8_t& byte : v.v) byte &= bits;
    return v;
  }
  static MNEME_INLINE Bytes merge(Bytes a, const Bytes& b) {
    for (size_t i = 0; i < kVectorBytes; ++i) a.v[i] |= b.v[i];
    return a;
  }
  template <size_t kBits>
  static MNEME_INLINE Bytes shift_right(Bytes v) {
    for (uint8_t& byte : v.v) byte = static_cast<uint8_t>(byte >> kBits);
    return v;
  }
  template <size_t kBits>
  static MNEME_INLINE Bytes shift_left(Bytes v) {
    for (uint8_t& byte : v.v) byte = static_cast<uint8_t>(byte << kBits);
    return v;
  }
  static MNEME_INLINE Bytes look_up(const uint8_t* table, Bytes codes) {
    for (uint8_t& byte : codes.v) byte = table[byte];
    return codes;
  }

  static MNEME_INLINE Ints set_ints(int32_t v) {
    Ints out;
    for (int32_t& lane : out.v) lane = v;
    return out;
  }
  /// sum + dot product of the four levels of each row with the four activations at x. Wraps: the start is a bit
  /// pattern.
  template <bool kWide>
  static MNEME_INLINE Ints dot(Ints sum, const Bytes& levels, const int8_t* x) {
    for (size_t r = 0; r < kStripeRows; ++r) {
      const uint8_t* quad = levels.v + 4 * r;
      const int32_t product = quad[0] * x[0] + quad[1] * x[1] + quad[2] * x[2] + quad[3] * x[3];
      sum.v[r] = static_cast<int32_t>(static_cast<uint32_t>(sum.v[r]) + static_cast<uint32_t>(product));
    }
    return sum;
  }
  static MNEME_INLINE Floats as_floats(const Ints& v) { return std::bit_cast<Floats>(v); }

  static MNEME_INLINE Floats zero_floats() { return set_floats(0); }
  static MNEME_INLINE Floats set_floats(float v) {
    Floats out;
    for (float& lane : out.v) lane = v;
    return out;
  }
  static MNEME_INLINE Floats load_floats(const float* p) {
    Floats out;
    std::memcpy(out.v, p, sizeof out.v);
    return out;
  }
  static MNEME_INLINE void store_floats(float* p, const Floats& v) { std::memcpy(p, v.v, sizeof v.v); }
  static MNEME_INLINE Floats add(Floats a, const Floats& b) {
    for (size_t r = 0; r < kStripeRows; ++r) a.v[r] += b.v[r];
    return a;
  }
  static MNEME_INLINE Floats subtract(Floats a, const Floats& b) {
    for (size_t r = 0; r < kStripeRows; ++r) a.v[r] -= b.v[r];
    return a;
  }
  /// a * b + c, rounded once or twice as the processor likes.
  static MNEME_INLINE Floats multiply_add(const Floats& a, const Floats& b, Floats c) {
    for (size_t r = 0; r < kStripeRows; ++r) c.v[r] += a.v[r] * b.v[r];
    return c;
  }
  static MNEME_INLINE Floats subtract_product(const Floats& a, const Floats& b, Floats c) {
    for (size_t r = 0; r < kStripeRows; ++r) c.v[r] -= a.v[r] * b.v[r];
    return c;
  }
  static MNEME_INLINE Floats load_halves(const uint8_t* p) {
    Floats out;
    for (size_t r = 0; r < kStripeRows; ++r) {
      uint16_t half = 0;
      std::memcpy(&half, p + 2 * r, sizeof half);
      out.v[r] = f16_to_f32(half);
    }
    return out;
  }
  /// sum + products of the pair of bfloat16 of each row with the pair at x, the second product first.
  static MNEME_INLINE Floats dot_bf16(Floats sum, const uint8_t* pairs, const uint16_t* x) {
    for (size_t r = 0; r < kStripeRows; ++r) {
      uint16_t pair[2];
      std::memcpy(pair, pairs + 4 * r, sizeof pair);
      sum.v[r] += bf16_to_f32(pair[1]) * bf16_to_f32(x[1]);
      sum.v[r] += bf16_to_f32(pair[0]) * bf16_to_f32(x[0]);
    }
    return sum;
  }

  /// out[i][r] = 32-bit word i of row r, 16 words of 16 rows.
  static MNEME_INLINE void transpose_16(const uint8_t* const (&rows)[kStripeRows], size_t offset, uint8_t* out) {
    for (size_t r = 0; r < kStripeRows; ++r) {
      for (size_t i = 0; i < 16; ++i) std::memcpy(out + kVectorBytes * i + 4 * r, rows[r] + offset + 4 * i, 4);
    }
  }
};

}  // namespace mneme::kernels::products::MNEME_TARGET
