#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/half.h"
#include "kernels/products/format.h"
#include "kernels/products/row_by_row-inl.h"
#include "tensor/dfloat_tile-inl.h"

namespace mneme::kernels::products::MNEME_TARGET {

/// The definition of every operation of the kernels, in loops over the 16 rows. Runs on any processor; compilers turn
/// the loops into what vectors the baseline has (NEON on 64-bit Arm).
struct Isa : RowByRow<Isa> {
  static constexpr size_t kStripes = 1;
  static constexpr size_t kInt8Tokens = 4;
  static constexpr size_t kFloatTokens = 4;
  static constexpr size_t kCodedRows = 4;  ///< Rows of the product with coded matrices, two accumulators each.
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
  /// look_up() of codes other than `code`, whose byte comes from `special`.
  template <uint8_t code>
  static MNEME_INLINE Bytes look_up_but(const uint8_t* table, Bytes codes, const Bytes& special) {
    for (size_t i = 0; i < kVectorBytes; ++i) codes.v[i] = codes.v[i] == code ? special.v[i] : table[codes.v[i]];
    return codes;
  }

  static MNEME_INLINE Bytes set_bytes(uint8_t v) {
    Bytes out;
    for (uint8_t& byte : out.v) byte = v;
    return out;
  }
  /// Sums modulo 256.
  static MNEME_INLINE Bytes add_bytes(Bytes a, const Bytes& b) {
    for (size_t i = 0; i < kVectorBytes; ++i) a.v[i] = static_cast<uint8_t>(a.v[i] + b.v[i]);
    return a;
  }
  /// (a + b + 1) / 2 of each byte.
  static MNEME_INLINE Bytes average(Bytes a, const Bytes& b) {
    for (size_t i = 0; i < kVectorBytes; ++i) a.v[i] = static_cast<uint8_t>((a.v[i] + b.v[i] + 1) / 2);
    return a;
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
  static MNEME_INLINE Floats to_floats(const Ints& v) {
    Floats out;
    for (size_t r = 0; r < kStripeRows; ++r) out.v[r] = static_cast<float>(v.v[r]);
    return out;
  }
  /// Sum of the lanes.
  static MNEME_INLINE float sum(Floats v) {
    for (size_t width = kStripeRows / 2; width > 0; width /= 2) {
      for (size_t r = 0; r < width; ++r) v.v[r] += v.v[r + width];
    }
    return v.v[0];
  }
  /// The larger magnitude of each lane, NaN above all, as bits; start with set_ints(0).
  static MNEME_INLINE Ints larger_bits(Ints bits, const Floats& v) {
    for (size_t r = 0; r < kStripeRows; ++r) {
      const uint32_t magnitude = std::bit_cast<uint32_t>(v.v[r]) & 0x7fffffffu;
      if (magnitude > static_cast<uint32_t>(bits.v[r])) bits.v[r] = static_cast<int32_t>(magnitude);
    }
    return bits;
  }
  static MNEME_INLINE uint32_t largest_bits(const Ints& bits) {
    uint32_t largest = 0;
    for (const int32_t lane : bits.v)
      largest = static_cast<uint32_t>(lane) > largest ? static_cast<uint32_t>(lane) : largest;
    return largest;
  }
  /// v * factor to the nearest integers 128 * high + low, low in [0, 127].
  static MNEME_INLINE void split_vector(const Floats& v, float factor, int8_t* high, int8_t* low) {
    for (size_t r = 0; r < kStripeRows; ++r) {
      const uint32_t bits = std::bit_cast<uint32_t>(v.v[r] * factor + 12582912.0f) - 0x4b400000u;
      const auto n = static_cast<int32_t>(bits);
      high[r] = static_cast<int8_t>(n >> 7);
      low[r] = static_cast<int8_t>(n & 127);
    }
  }

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
  static MNEME_INLINE Floats multiply(Floats a, const Floats& b) {
    for (size_t r = 0; r < kStripeRows; ++r) a.v[r] *= b.v[r];
    return a;
  }
  /// sum + v in the rows whose word has bit `bit`, sum - v in the others.
  static MNEME_INLINE Floats add_signed(Floats sum, const Floats& v, const uint8_t* words, unsigned bit) {
    for (size_t r = 0; r < kStripeRows; ++r) {
      uint32_t word = 0;
      std::memcpy(&word, words + 4 * r, sizeof word);
      sum.v[r] += (word >> bit & 1u) != 0 ? v.v[r] : -v.v[r];
    }
    return sum;
  }

  /// Numbers of differing bits of rows, on their way.
  using Counts = Ints;
  static MNEME_INLINE Counts no_counts() { return set_ints(0); }
  /// counts + bits in which the word of each row differs from x; at most 4 words.
  static MNEME_INLINE Counts count_differing(Counts counts, const uint32_t* words, uint32_t x) {
    for (size_t r = 0; r < kStripeRows; ++r) counts.v[r] += std::popcount(words[r] ^ x);
    return counts;
  }
  static MNEME_INLINE Ints add_shifted(Ints sum, const Counts& counts, int shift) {
    for (size_t r = 0; r < kStripeRows; ++r) sum.v[r] += counts.v[r] << shift;
    return sum;
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
  /// 16 unsigned E4M3 numbers over 256, which are halves with the same fields; the NaN is zero, the top bit means
  /// nothing.
  static MNEME_INLINE Floats load_small_ue4m3(const uint8_t* p) {
    Floats out;
    for (size_t r = 0; r < kStripeRows; ++r) {
      out.v[r] = p[r] == 127 ? 0.0f : f16_to_f32(static_cast<uint16_t>((p[r] & 127) << 7));
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

  /// 64 bfloat16 words from bytes of exponents, and of signs and mantissas.
  static MNEME_INLINE void merge_words(const uint8_t* exponents, const uint8_t* sm, Bytes (&words)[2]) {
    uint16_t out[64];
    dfloat::MNEME_TARGET::merge_words(exponents, sm, 64, out);
    std::memcpy(words[0].v, out, sizeof words[0].v);
    std::memcpy(words[1].v, out + 32, sizeof words[1].v);
  }
  /// What df12_words() needs of the exponent of nibble 0.
  static MNEME_INLINE unsigned df12_exponents(unsigned base) { return base; }
  /// 64 words of DF12 (tensor/dfloat.h) from 32 bytes of nibbles and 64 of signs and mantissas.
  static MNEME_INLINE void df12_words(unsigned base, const uint8_t* nibbles, const uint8_t* sm, Bytes (&words)[2]) {
    uint16_t out[64];
    dfloat::MNEME_TARGET::df12_words(nibbles, 0, sm, base, out);
    dfloat::MNEME_TARGET::df12_words(nibbles, 4, sm + 32, base, out + 32);
    std::memcpy(words[0].v, out, sizeof words[0].v);
    std::memcpy(words[1].v, out + 32, sizeof words[1].v);
  }

  static MNEME_INLINE Floats dot_bf16(Floats sum, const Bytes& pairs, const uint16_t* x) {
    return dot_bf16(sum, pairs.v, x);
  }

  /// out[i][r] = 32-bit word i of row r, 16 words of 16 rows.
  static MNEME_INLINE void transpose_16(const uint8_t* const (&rows)[kStripeRows], size_t offset, uint8_t* out) {
    for (size_t r = 0; r < kStripeRows; ++r) {
      for (size_t i = 0; i < 16; ++i) std::memcpy(out + kVectorBytes * i + 4 * r, rows[r] + offset + 4 * i, 4);
    }
  }
};

}  // namespace mneme::kernels::products::MNEME_TARGET
