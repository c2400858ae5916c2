#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace mneme::kernels::products::MNEME_TARGET {

/// AVX-512 with VNNI and BF16: one register holds what the kernels call a vector.
struct Isa {
  static constexpr size_t kStripes = 2;     ///< Stripes of rows that a product kernel holds.
  static constexpr size_t kInt8Tokens = 6;  ///< Tokens of the 8-bit kernel: 24 accumulators.
  static constexpr size_t kFloatTokens = 12;
  static constexpr size_t kCodedRows = 4;  ///< Rows of the product with coded matrices, two accumulators each.
  static constexpr bool kSignedWide = false;

  using Bytes = __m512i;
  using Ints = __m512i;
  using Floats = __m512;

  /// The barrier keeps the compiler from loading the same bytes again for each use.
  static MNEME_INLINE Bytes load_bytes(const uint8_t* p) {
    Bytes v = _mm512_loadu_si512(p);
    asm("" : "+v"(v));
    return v;
  }
  static MNEME_INLINE void store_bytes(uint8_t* p, Bytes v) { _mm512_storeu_si512(p, v); }
  static MNEME_INLINE Bytes mask(Bytes v, uint8_t bits) {
    return _mm512_and_si512(v, _mm512_set1_epi8(static_cast<char>(bits)));
  }
  static MNEME_INLINE Bytes merge(Bytes a, Bytes b) { return _mm512_or_si512(a, b); }
  template <size_t kBits>
  static MNEME_INLINE Bytes shift_right(Bytes v) {
    return _mm512_srli_epi16(v, kBits);
  }
  template <size_t kBits>
  static MNEME_INLINE Bytes shift_left(Bytes v) {
    return _mm512_slli_epi16(v, kBits);
  }
  static MNEME_INLINE Bytes look_up(const uint8_t* table, Bytes codes) {
    const __m128i entries = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(entries), codes);
  }
  /// look_up() of codes other than `code`, whose byte comes from `special`.
  template <uint8_t code>
  static MNEME_INLINE Bytes look_up_but(const uint8_t* table, Bytes codes, Bytes special) {
    const __m128i entries = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    const __mmask64 others = _mm512_cmpneq_epi8_mask(codes, _mm512_set1_epi8(static_cast<char>(code)));
    return _mm512_mask_shuffle_epi8(special, others, _mm512_broadcast_i32x4(entries), codes);
  }

  static MNEME_INLINE Ints set_ints(int32_t v) { return _mm512_set1_epi32(v); }
  /// sum + dot product of the four levels of each row with the four activations at x.
  template <bool kWide>
  static MNEME_INLINE Ints dot(Ints sum, Bytes levels, const int8_t* x) {
    int32_t quad = 0;
    std::memcpy(&quad, x, sizeof quad);
    return _mm512_dpbusd_epi32(sum, levels, _mm512_set1_epi32(quad));
  }
  static MNEME_INLINE Floats as_floats(Ints v) { return _mm512_castsi512_ps(v); }
  static MNEME_INLINE Floats to_floats(Ints v) { return _mm512_cvtepi32_ps(v); }
  /// Sum of the lanes.
  static MNEME_INLINE float sum(Floats v) { return _mm512_reduce_add_ps(v); }
  /// The larger magnitude of each lane, NaN above all, as bits; start with set_ints(0).
  static MNEME_INLINE Ints larger_bits(Ints bits, Floats v) {
    return _mm512_max_epu32(bits, _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fffffff)));
  }
  static MNEME_INLINE uint32_t largest_bits(Ints bits) { return _mm512_reduce_max_epu32(bits); }
  /// v * factor to the nearest integers 128 * high + low, low in [0, 127].
  static MNEME_INLINE void split(Floats v, float factor, int8_t* high, int8_t* low) {
    const __m512i n = _mm512_cvtps_epi32(_mm512_mul_ps(v, _mm512_set1_ps(factor)));
    _mm_store_si128(reinterpret_cast<__m128i*>(high), _mm512_cvtepi32_epi8(_mm512_srai_epi32(n, 7)));
    _mm_store_si128(reinterpret_cast<__m128i*>(low), _mm512_cvtepi32_epi8(_mm512_and_si512(n, _mm512_set1_epi32(127))));
  }

  static MNEME_INLINE Floats zero_floats() { return _mm512_setzero_ps(); }
  static MNEME_INLINE Floats set_floats(float v) { return _mm512_set1_ps(v); }
  static MNEME_INLINE Floats load_floats(const float* p) { return _mm512_loadu_ps(p); }
  static MNEME_INLINE void store_floats(float* p, Floats v) { _mm512_storeu_ps(p, v); }
  static MNEME_INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static MNEME_INLINE Floats subtract(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
  static MNEME_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static MNEME_INLINE Floats subtract_product(Floats a, Floats b, Floats c) { return _mm512_fnmadd_ps(a, b, c); }
  static MNEME_INLINE Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  /// sum + v in the rows whose word has bit `bit`, sum - v in the others.
  static MNEME_INLINE Floats add_signed(Floats sum, Floats v, const uint8_t* words, unsigned bit) {
    const __mmask16 plus =
        _mm512_test_epi32_mask(_mm512_loadu_si512(words), _mm512_set1_epi32(static_cast<int>(1u << bit)));
    return _mm512_mask_add_ps(_mm512_sub_ps(sum, v), plus, sum, v);
  }

  /// Numbers of differing bits of rows, on their way.
  using Counts = __m512i;
  static MNEME_INLINE Counts no_counts() { return _mm512_setzero_si512(); }
  /// counts + bits in which the word of each row differs from x; at most 4 words.
  static MNEME_INLINE Counts count_differing(Counts counts, const uint32_t* words, uint32_t x) {
    const __m512i differing = _mm512_xor_si512(_mm512_loadu_si512(words), _mm512_set1_epi32(static_cast<int>(x)));
    return _mm512_add_epi32(counts, _mm512_popcnt_epi32(differing));
  }
  static MNEME_INLINE Ints add_shifted(Ints sum, Counts counts, int shift) {
    return _mm512_add_epi32(sum, _mm512_slli_epi32(counts, static_cast<unsigned>(shift)));
  }
  static MNEME_INLINE Floats load_halves(const uint8_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  /// sum + products of the pair of bfloat16 of each row with the pair at x.
  static MNEME_INLINE Floats dot_bf16(Floats sum, const uint8_t* pairs, const uint16_t* x) {
    int32_t pair = 0;
    std::memcpy(&pair, x, sizeof pair);
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_loadu_si512(pairs), (__m512bh)_mm512_set1_epi32(pair));
  }

  /// out[i][r] = word i of row r, 16 words of 16 rows.
  static MNEME_INLINE void transpose_16(const uint8_t* const (&rows)[16], size_t offset, uint8_t* out) {
    __m512i a[16], b[16];
    for (size_t r = 0; r < 16; ++r) a[r] = _mm512_loadu_si512(rows[r] + offset);
    for (size_t i = 0; i < 8; ++i) {
      b[2 * i] = _mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
      b[2 * i + 1] = _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
    }
    for (size_t i = 0; i < 4; ++i) {
      for (size_t j = 0; j < 2; ++j) {
        a[4 * i + 2 * j] = _mm512_unpacklo_epi64(b[4 * i + j], b[4 * i + 2 + j]);
        a[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(b[4 * i + j], b[4 * i + 2 + j]);
      }
    }
    // a[4i + w] now holds, in 128-bit lane l, word 4l + w of rows 4i .. 4i + 3.
    for (size_t w = 0; w < 4; ++w) {
      const __m512i even = _mm512_shuffle_i32x4(a[w], a[4 + w], 0x88), odd = _mm512_shuffle_i32x4(a[w], a[4 + w], 0xdd);
      const __m512i even2 = _mm512_shuffle_i32x4(a[8 + w], a[12 + w], 0x88);
      const __m512i odd2 = _mm512_shuffle_i32x4(a[8 + w], a[12 + w], 0xdd);
      _mm512_storeu_si512(out + 64 * w, _mm512_shuffle_i32x4(even, even2, 0x88));
      _mm512_storeu_si512(out + 64 * (8 + w), _mm512_shuffle_i32x4(even, even2, 0xdd));
      _mm512_storeu_si512(out + 64 * (4 + w), _mm512_shuffle_i32x4(odd, odd2, 0x88));
      _mm512_storeu_si512(out + 64 * (12 + w), _mm512_shuffle_i32x4(odd, odd2, 0xdd));
    }
  }
};

}  // namespace mneme::kernels::products::MNEME_TARGET
