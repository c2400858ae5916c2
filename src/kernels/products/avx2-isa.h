#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/products/row_by_row-inl.h"

namespace mneme::kernels::products::MNEME_TARGET {

/// AVX2 with FMA and F16C: what the kernels call a vector is two registers, rows 0-7 and 8-15.
struct Isa : RowByRow<Isa> {
  static constexpr size_t kStripes = 1;
  static constexpr size_t kInt8Tokens = 2;   ///< 8 accumulators of the 16 registers.
  static constexpr size_t kFloatTokens = 6;  ///< 12 accumulators.
  static constexpr size_t kCodedRows = 2;    ///< Rows of the product with coded matrices, two accumulators each.
  static constexpr bool kSignedWide = true;  ///< See dot().

  struct Bytes {
    __m256i low, high;
  };
  using Ints = Bytes;
  struct Floats {
    __m256 low, high;
  };

  static MNEME_INLINE __m256i load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static MNEME_INLINE Bytes load_bytes(const uint8_t* p) { return {load(p), load(p + 32)}; }
  static MNEME_INLINE void store_bytes(uint8_t* p, Bytes v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v.low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), v.high);
  }
  static MNEME_INLINE Bytes mask(Bytes v, uint8_t bits) {
    const __m256i m = _mm256_set1_epi8(static_cast<char>(bits));
    return {_mm256_and_si256(v.low, m), _mm256_and_si256(v.high, m)};
  }
  static MNEME_INLINE Bytes merge(Bytes a, Bytes b) {
    return {_mm256_or_si256(a.low, b.low), _mm256_or_si256(a.high, b.high)};
  }
  template <size_t kBits>
  static MNEME_INLINE Bytes shift_right(Bytes v) {
    return {_mm256_srli_epi16(v.low, kBits), _mm256_srli_epi16(v.high, kBits)};
  }
  template <size_t kBits>
  static MNEME_INLINE Bytes shift_left(Bytes v) {
    return {_mm256_slli_epi16(v.low, kBits), _mm256_slli_epi16(v.high, kBits)};
  }
  static MNEME_INLINE Bytes look_up(const uint8_t* table, Bytes codes) {
    const __m256i entries = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
    return {_mm256_shuffle_epi8(entries, codes.low), _mm256_shuffle_epi8(entries, codes.high)};
  }
  /// look_up() of codes other than `code`, whose byte comes from `special`.
  template <uint8_t code>
  static MNEME_INLINE Bytes look_up_but(const uint8_t* table, Bytes codes, Bytes special) {
    const Bytes levels = look_up(table, codes);
    const __m256i c = _mm256_set1_epi8(static_cast<char>(code));
    return {_mm256_blendv_epi8(levels.low, special.low, _mm256_cmpeq_epi8(codes.low, c)),
            _mm256_blendv_epi8(levels.high, special.high, _mm256_cmpeq_epi8(codes.high, c))};
  }

  static MNEME_INLINE Bytes set_bytes(uint8_t v) {
    const __m256i all = _mm256_set1_epi8(static_cast<char>(v));
    return {all, all};
  }
  /// Sums modulo 256.
  static MNEME_INLINE Bytes add_bytes(Bytes a, Bytes b) {
    return {_mm256_add_epi8(a.low, b.low), _mm256_add_epi8(a.high, b.high)};
  }
  /// (a + b + 1) / 2 of each byte.
  static MNEME_INLINE Bytes average(Bytes a, Bytes b) {
    return {_mm256_avg_epu8(a.low, b.low), _mm256_avg_epu8(a.high, b.high)};
  }
  static MNEME_INLINE Ints set_ints(int32_t v) { return {_mm256_set1_epi32(v), _mm256_set1_epi32(v)}; }

  /// Products of pairs are summed in 16 bits: 2 * 63 * 127 fits for narrow levels. Wide ones are taken as signed, level
  /// less 128, and multiply |level| with x of the level's sign: 2 * 128 * 127 fits just so.
  template <bool kWide>
  static MNEME_INLINE __m256i dot_half(__m256i sum, __m256i levels, __m256i x) {
    if constexpr (kWide) {
      const __m256i s = _mm256_xor_si256(levels, _mm256_set1_epi8(static_cast<char>(0x80)));
      x = _mm256_sign_epi8(x, s);
      levels = _mm256_abs_epi8(s);
    }
    const __m256i pairs = _mm256_maddubs_epi16(levels, x);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  /// sum + dot product of the four levels of each row with the four activations at x.
  template <bool kWide>
  static MNEME_INLINE Ints dot(Ints sum, Bytes levels, const int8_t* x) {
    int32_t quad = 0;
    std::memcpy(&quad, x, sizeof quad);
    const __m256i v = _mm256_set1_epi32(quad);
    return {dot_half<kWide>(sum.low, levels.low, v), dot_half<kWide>(sum.high, levels.high, v)};
  }
  static MNEME_INLINE Floats as_floats(Ints v) { return {_mm256_castsi256_ps(v.low), _mm256_castsi256_ps(v.high)}; }
  static MNEME_INLINE Floats to_floats(Ints v) { return {_mm256_cvtepi32_ps(v.low), _mm256_cvtepi32_ps(v.high)}; }
  /// Sum of the lanes.
  static MNEME_INLINE float sum(Floats v) {
    const __m256 both = _mm256_add_ps(v.low, v.high);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
  }
  /// The larger magnitude of each lane, NaN above all, as bits; start with set_ints(0).
  static MNEME_INLINE Ints larger_bits(Ints bits, Floats v) {
    const __m256i sign = _mm256_set1_epi32(0x7fffffff);
    return {_mm256_max_epu32(bits.low, _mm256_and_si256(_mm256_castps_si256(v.low), sign)),
            _mm256_max_epu32(bits.high, _mm256_and_si256(_mm256_castps_si256(v.high), sign))};
  }
  static MNEME_INLINE uint32_t largest_bits(Ints bits) {
    const __m256i both = _mm256_max_epu32(bits.low, bits.high);
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4e));
    return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_max_epu32(four, _mm_shuffle_epi32(four, 0xb1))));
  }
  static MNEME_INLINE __m128i to_bytes(__m256i low, __m256i high) {
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
    return _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  }
  /// v * factor to the nearest integers 128 * high + low, low in [0, 127].
  static MNEME_INLINE void split_vector(Floats v, float factor, int8_t* high, int8_t* low) {
    const __m256 f = _mm256_set1_ps(factor);
    const __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(v.low, f)), b = _mm256_cvtps_epi32(_mm256_mul_ps(v.high, f));
    const __m256i mask = _mm256_set1_epi32(127);
    _mm_store_si128(reinterpret_cast<__m128i*>(high), to_bytes(_mm256_srai_epi32(a, 7), _mm256_srai_epi32(b, 7)));
    _mm_store_si128(reinterpret_cast<__m128i*>(low), to_bytes(_mm256_and_si256(a, mask), _mm256_and_si256(b, mask)));
  }

  static MNEME_INLINE Floats zero_floats() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static MNEME_INLINE Floats set_floats(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
  static MNEME_INLINE Floats load_floats(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static MNEME_INLINE void store_floats(float* p, Floats v) {
    _mm256_storeu_ps(p, v.low);
    _mm256_storeu_ps(p + 8, v.high);
  }
  static MNEME_INLINE Floats add(Floats a, Floats b) {
    return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
  }
  static MNEME_INLINE Floats subtract(Floats a, Floats b) {
    return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
  }
  static MNEME_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  static MNEME_INLINE Floats subtract_product(Floats a, Floats b, Floats c) {
    return {_mm256_fnmadd_ps(a.low, b.low, c.low), _mm256_fnmadd_ps(a.high, b.high, c.high)};
  }
  static MNEME_INLINE Floats multiply(Floats a, Floats b) {
    return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
  }
  static MNEME_INLINE __m256 add_signed_half(__m256 sum, __m256 v, __m256i words, unsigned bit) {
    const __m256i top = _mm256_sll_epi32(words, _mm_cvtsi32_si128(static_cast<int>(31 - bit)));
    const __m256i minus = _mm256_andnot_si256(top, _mm256_set1_epi32(static_cast<int>(0x80000000u)));
    return _mm256_add_ps(sum, _mm256_xor_ps(v, _mm256_castsi256_ps(minus)));
  }
  /// sum + v in the rows whose word has bit `bit`, sum - v in the others.
  static MNEME_INLINE Floats add_signed(Floats sum, Floats v, const uint8_t* words, unsigned bit) {
    return {add_signed_half(sum.low, v.low, load(words), bit),
            add_signed_half(sum.high, v.high, load(words + 32), bit)};
  }

  /// Numbers of differing bits of the bytes of rows, on their way.
  using Counts = Bytes;
  static MNEME_INLINE Counts no_counts() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static MNEME_INLINE __m256i byte_counts(__m256i v) {
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2,
                                           2, 3, 2, 3, 3, 4);
    const __m256i nibble = _mm256_set1_epi8(15);
    return _mm256_add_epi8(_mm256_shuffle_epi8(table, _mm256_and_si256(v, nibble)),
                           _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble)));
  }
  /// counts + bits in which the word of each row differs from x; at most 4 words.
  static MNEME_INLINE Counts count_differing(Counts counts, const uint32_t* words, uint32_t x) {
    const __m256i v = _mm256_set1_epi32(static_cast<int>(x));
    const auto* bytes = reinterpret_cast<const uint8_t*>(words);
    return {_mm256_add_epi8(counts.low, byte_counts(_mm256_xor_si256(load(bytes), v))),
            _mm256_add_epi8(counts.high, byte_counts(_mm256_xor_si256(load(bytes + 32), v)))};
  }
  static MNEME_INLINE __m256i add_shifted_half(__m256i sum, __m256i counts, int shift) {
    const __m256i pairs = _mm256_maddubs_epi16(counts, _mm256_set1_epi8(1));
    return _mm256_add_epi32(sum, _mm256_slli_epi32(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)), shift));
  }
  static MNEME_INLINE Ints add_shifted(Ints sum, Counts counts, int shift) {
    return {add_shifted_half(sum.low, counts.low, shift), add_shifted_half(sum.high, counts.high, shift)};
  }
  static MNEME_INLINE Floats load_halves(const uint8_t* p) {
    const __m256i halves = load(p);
    return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
  }
  /// 16 unsigned E4M3 numbers over 256, which are halves with the same fields; the NaN is zero, the top bit means
  /// nothing.
  static MNEME_INLINE Floats load_small_ue4m3(const uint8_t* p) {
    __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    bytes = _mm_andnot_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(127)), bytes);
    const __m256i halves =
        _mm256_and_si256(_mm256_slli_epi16(_mm256_cvtepu8_epi16(bytes), 7), _mm256_set1_epi16(127 << 7));
    return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
  }
  static MNEME_INLINE __m256 dot_bf16_half(__m256 sum, __m256i pairs, __m256i x) {
    const __m256i second = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    sum = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_and_si256(pairs, second)),
                          _mm256_castsi256_ps(_mm256_and_si256(x, second)), sum);
    return _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)),
                           _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)), sum);
  }
  /// sum + products of the pair of bfloat16 of each row with the pair at x, the second product first.
  static MNEME_INLINE Floats dot_bf16(Floats sum, Bytes pairs, const uint16_t* x) {
    int32_t pair = 0;
    std::memcpy(&pair, x, sizeof pair);
    const __m256i v = _mm256_set1_epi32(pair);
    return {dot_bf16_half(sum.low, pairs.low, v), dot_bf16_half(sum.high, pairs.high, v)};
  }
  static MNEME_INLINE Floats dot_bf16(Floats sum, const uint8_t* pairs, const uint16_t* x) {
    return dot_bf16(sum, load_bytes(pairs), x);
  }

  /// What df12_words() needs of the exponent of nibble 0.
  static MNEME_INLINE __m256i df12_exponents(unsigned base) {
    return _mm256_set1_epi16(static_cast<int16_t>(base << 7));
  }
  /// 16 bfloat16 words from exponents in their place and bytes of signs and mantissas.
  static MNEME_INLINE __m256i with_exponents(__m256i exponents, const uint8_t* sm) {
    // Sign-extended, sm has its sign and mantissa in place; the bits between are the exponent's.
    const __m256i rest = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sm)));
    return _mm256_or_si256(_mm256_andnot_si256(_mm256_set1_epi16(0x7f80), rest), exponents);
  }
  static MNEME_INLINE __m256i merge_part(const uint8_t* exponents, const uint8_t* sm) {
    const __m256i e = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(exponents)));
    return with_exponents(_mm256_slli_epi16(e, 7), sm);
  }
  /// 64 bfloat16 words from bytes of exponents, and of signs and mantissas.
  static MNEME_INLINE void merge_words(const uint8_t* exponents, const uint8_t* sm, Bytes (&words)[2]) {
    words[0] = {merge_part(exponents, sm), merge_part(exponents + 16, sm + 16)};
    words[1] = {merge_part(exponents + 32, sm + 32), merge_part(exponents + 48, sm + 48)};
  }
  /// 64 words of DF12 from 32 bytes of nibbles and 64 of signs and mantissas.
  static MNEME_INLINE void df12_words(__m256i base, const uint8_t* nibbles, const uint8_t* sm, Bytes (&words)[2]) {
    const __m256i first = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(nibbles)));
    const __m256i second = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(nibbles + 16)));
    const auto exponents = [base](__m256i v) {
      return _mm256_add_epi16(_mm256_and_si256(v, _mm256_set1_epi16(0x780)), base);
    };
    words[0] = {with_exponents(exponents(_mm256_slli_epi16(first, 7)), sm),
                with_exponents(exponents(_mm256_slli_epi16(second, 7)), sm + 16)};
    words[1] = {with_exponents(exponents(_mm256_slli_epi16(first, 3)), sm + 32),
                with_exponents(exponents(_mm256_slli_epi16(second, 3)), sm + 48)};
  }

  /// out[i][r] = word i of row r, 8 words of 8 rows.
  static MNEME_INLINE void transpose_8(const uint8_t* const* rows, size_t offset, uint8_t* out) {
    __m256i a[8], b[8];
    for (size_t r = 0; r < 8; ++r) a[r] = load(rows[r] + offset);
    for (size_t i = 0; i < 4; ++i) {
      b[2 * i] = _mm256_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
      b[2 * i + 1] = _mm256_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
    }
    for (size_t i = 0; i < 2; ++i) {
      for (size_t j = 0; j < 2; ++j) {
        a[4 * i + 2 * j] = _mm256_unpacklo_epi64(b[4 * i + j], b[4 * i + 2 + j]);
        a[4 * i + 2 * j + 1] = _mm256_unpackhi_epi64(b[4 * i + j], b[4 * i + 2 + j]);
      }
    }
    // a[4i + w] now holds, in 128-bit lane l, word 4l + w of rows 4i .. 4i + 3.
    for (size_t w = 0; w < 4; ++w) {
      const __m256i first = _mm256_permute2x128_si256(a[w], a[4 + w], 0x20);
      const __m256i second = _mm256_permute2x128_si256(a[w], a[4 + w], 0x31);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 64 * w), first);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 64 * (4 + w)), second);
    }
  }
  /// out[i][r] = word i of row r, 16 words of 16 rows.
  static MNEME_INLINE void transpose_16(const uint8_t* const (&rows)[16], size_t offset, uint8_t* out) {
    for (size_t i = 0; i < 2; ++i) {
      for (size_t r = 0; r < 2; ++r) transpose_8(rows + 8 * r, offset + 32 * i, out + 512 * i + 32 * r);
    }
  }
};

}  // namespace mneme::kernels::products::MNEME_TARGET
