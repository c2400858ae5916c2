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

  struct Quad {
    int8_t x[4];
  };
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

  static MNEME_INLINE Bytes set_bytes(uint8_t v) { return _mm512_set1_epi8(static_cast<char>(v)); }
  /// Sums modulo 256.
  static MNEME_INLINE Bytes add_bytes(Bytes a, Bytes b) { return _mm512_add_epi8(a, b); }
  /// (a + b + 1) / 2 of each byte.
  static MNEME_INLINE Bytes average(Bytes a, Bytes b) { return _mm512_avg_epu8(a, b); }
  static MNEME_INLINE Ints set_ints(int32_t v) { return _mm512_set1_epi32(v); }
  /// sum + dot product of the four levels of each row with the four activations at x.
  template <bool kWide>
  static MNEME_INLINE Ints dot(Ints sum, Bytes levels, const int8_t* x) {
    int32_t quad = 0;
    std::memcpy(&quad, x, sizeof quad);
    return _mm512_dpbusd_epi32(sum, levels, _mm512_set1_epi32(quad));
  }
  /// dot() of codes whose activations serve once: they come from memory with the product itself, where GCC 12 would
  /// spend an instruction on them.
  template <bool kWide>
  static MNEME_INLINE Ints dot_once(Ints sum, Bytes levels, const int8_t* x) {
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(levels), "m"(*reinterpret_cast<const Quad*>(x)));
    return sum;
  }
  static MNEME_INLINE Floats as_floats(Ints v) { return _mm512_castsi512_ps(v); }
  static MNEME_INLINE Floats to_floats(Ints v) { return _mm512_cvtepi32_ps(v); }
  /// Sum of the lanes.
  static MNEME_INLINE float sum(Floats v) { return _mm512_reduce_add_ps(v); }
  /// The larger magnitude of each lane, NaN above all, as bits; start with set_ints(0).
  static MNEME_INLINE Ints larger_bits(Ints bits, Floats v) {
    return _mm512_max_epu32(bits, _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fffffff)));
  }
  static MNEME_INLINE __m512 add_halves(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  }
  static MNEME_INLINE __m512i max_halves(__m512i a, __m512i b) {
    return _mm512_max_epu32(_mm512_shuffle_i32x4(a, b, 0x44), _mm512_shuffle_i32x4(a, b, 0xee));
  }
  /// out[r] = sum of the lanes of row r, in the order of sum(). At most four rows.
  template <size_t kRows>
  static MNEME_INLINE void sum_rows(const Floats (&v)[kRows], float* out) {
    if constexpr (kRows == 1) {
      out[0] = sum(v[0]);
    } else {
      const __m512 ab = add_halves(v[0], v[1]), cd = kRows == 4 ? add_halves(v[kRows - 2], v[kRows - 1]) : ab;
      __m512 t = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
      t = _mm512_add_ps(t, _mm512_permute_ps(t, 0x4e));
      const __m128 sums = firsts(_mm512_add_ps(t, _mm512_permute_ps(t, 0xb1)));
      std::memcpy(out, &sums, kRows * sizeof(float));
    }
  }
  /// scale[r] = max(factor * largest lane of row r, least) and its inverse; the lanes are bits of floats without a
  /// sign, NaN above all. At most four rows.
  template <size_t kRows>
  static MNEME_INLINE void scale_rows(const Ints (&v)[kRows], float factor, float least, float* scale, float* inverse) {
    const __m512i ab = max_halves(v[0], v[kRows > 1 ? 1 : 0]);
    const __m512i cd = kRows == 4 ? max_halves(v[kRows - (kRows > 1 ? 2 : 1)], v[kRows - 1]) : ab;
    __m512i t = _mm512_max_epu32(_mm512_shuffle_i32x4(ab, cd, 0x88), _mm512_shuffle_i32x4(ab, cd, 0xdd));
    t = _mm512_max_epu32(t, _mm512_shuffle_epi32(t, static_cast<_MM_PERM_ENUM>(0x4e)));
    t = _mm512_max_epu32(t, _mm512_shuffle_epi32(t, static_cast<_MM_PERM_ENUM>(0xb1)));
    const __m128 largest = firsts(_mm512_castsi512_ps(t));
    const __m128 scales = _mm_max_ps(_mm_set1_ps(least), _mm_mul_ps(largest, _mm_set1_ps(factor)));
    const __m128 inverses = _mm_div_ps(_mm_set1_ps(1), scales);
    std::memcpy(scale, &scales, kRows * sizeof(float));
    std::memcpy(inverse, &inverses, kRows * sizeof(float));
  }
  /// The first of each four lanes.
  static MNEME_INLINE __m128 firsts(__m512 v) {
    const __m512i at = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_castps512_ps128(_mm512_permutexvar_ps(at, v));
  }
  static constexpr bool kTransposedDigits = true;  ///< See split().
  /// 64 floats times a factor for each half to the nearest integers 128 * high + low, low in [0, 127]. Word 4 i + j of
  /// the results holds depths 16 j + 4 i to 16 j + 4 i + 3, as packing leaves them.
  static MNEME_INLINE void split(const Floats (&v)[4], float first_factor, float second_factor, int8_t* high,
                                 int8_t* low) {
    const __m512 first = _mm512_set1_ps(first_factor), second = _mm512_set1_ps(second_factor);
    const __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(v[0], first));
    const __m512i b = _mm512_cvtps_epi32(_mm512_mul_ps(v[1], first));
    const __m512i c = _mm512_cvtps_epi32(_mm512_mul_ps(v[2], second));
    const __m512i d = _mm512_cvtps_epi32(_mm512_mul_ps(v[3], second));
    const __m512i ab = _mm512_packs_epi32(a, b), cd = _mm512_packs_epi32(c, d), mask = _mm512_set1_epi16(127);
    _mm512_store_si512(high, _mm512_packs_epi16(_mm512_srai_epi16(ab, 7), _mm512_srai_epi16(cd, 7)));
    _mm512_store_si512(low, _mm512_packs_epi16(_mm512_and_si512(ab, mask), _mm512_and_si512(cd, mask)));
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
  /// 16 unsigned E4M3 numbers over 256, which are halves with the same fields; the NaN is zero, the top bit means
  /// nothing.
  static MNEME_INLINE Floats load_small_ue4m3(const uint8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const __m256i halves =
        _mm256_and_si256(_mm256_slli_epi16(_mm256_cvtepu8_epi16(bytes), 7), _mm256_set1_epi16(127 << 7));
    return _mm512_maskz_cvtph_ps(_mm_cmpneq_epi8_mask(bytes, _mm_set1_epi8(127)), halves);
  }
  /// sum + products of the pair of bfloat16 of each row with the pair at x.
  static MNEME_INLINE Floats dot_bf16(Floats sum, Bytes pairs, const uint16_t* x) {
    int32_t pair = 0;
    std::memcpy(&pair, x, sizeof pair);
    return _mm512_dpbf16_ps(sum, (__m512bh)pairs, (__m512bh)_mm512_set1_epi32(pair));
  }
  static MNEME_INLINE Floats dot_bf16(Floats sum, const uint8_t* pairs, const uint16_t* x) {
    return dot_bf16(sum, _mm512_loadu_si512(pairs), x);
  }

  /// The exponents of DF12's nibbles (tensor/dfloat.h) where a bfloat16 has them, for nibbles with any fifth bit.
  static MNEME_INLINE Bytes df12_exponents(unsigned base) {
    alignas(64) uint16_t words[32];
    for (unsigned i = 0; i < 32; ++i) words[i] = static_cast<uint16_t>((base + i % 16) << 7);
    return _mm512_load_si512(words);
  }
  /// 32 bfloat16 words from exponents in their place and bytes of signs and mantissas.
  static MNEME_INLINE __m512i with_exponents(__m512i exponents, const uint8_t* sm) {
    // Sign-extended, sm has its sign and mantissa in place; the bits between are the exponent's.
    const __m512i rest = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(sm)));
    constexpr int kSecondWhereFirstElseThird = 0xca;
    return _mm512_ternarylogic_epi32(_mm512_set1_epi16(0x7f80), exponents, rest, kSecondWhereFirstElseThird);
  }
  /// 64 bfloat16 words from bytes of exponents, and of signs and mantissas.
  static MNEME_INLINE void merge_words(const uint8_t* exponents, const uint8_t* sm, Bytes (&words)[2]) {
    for (size_t i = 0; i < 2; ++i) {
      const __m256i e = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(exponents + 32 * i));
      words[i] = with_exponents(_mm512_slli_epi16(_mm512_cvtepu8_epi16(e), 7), sm + 32 * i);
    }
  }
  /// 64 words of DF12 from 32 bytes of nibbles and 64 of signs and mantissas.
  static MNEME_INLINE void df12_words(Bytes exponents, const uint8_t* nibbles, const uint8_t* sm, Bytes (&words)[2]) {
    const __m512i both = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(nibbles)));
    words[0] = with_exponents(_mm512_permutexvar_epi16(both, exponents), sm);
    words[1] = with_exponents(_mm512_permutexvar_epi16(_mm512_srli_epi16(both, 4), exponents), sm + 32);
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
