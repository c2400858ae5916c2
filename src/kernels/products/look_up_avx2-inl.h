#pragma once

// Look-ups of 32 codes at once in tables of bytes, with AVX2: a table of 2^B bytes is 2^(B - 4) pieces of 16, which a
// shuffle reads; the bits above the fourth choose between pieces. Compiled once a target that has AVX2.
namespace mneme::kernels::products::MNEME_TARGET {

struct LookUp {
  /// Sums of 32 rows in 16 bits.
  struct Sums {
    __m256i low, high;
  };
  static MNEME_INLINE Sums zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }

  static MNEME_INLINE __m256i piece(const int8_t* table) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  }
  /// Byte r = bits 2r and 2r + 1 ... of eight bytes as tensor/aqlm.h lays a plane of two bits.
  static MNEME_INLINE __m256i two_bits(const uint8_t* plane) {
    int64_t bytes = 0;
    std::memcpy(&bytes, plane, sizeof bytes);
    const __m256i parts = _mm256_srlv_epi64(_mm256_set1_epi64x(bytes), _mm256_setr_epi64x(0, 2, 4, 6));
    return _mm256_and_si256(parts, _mm256_set1_epi8(3));
  }
  /// All bits of byte r set where bit r of the word is.
  static MNEME_INLINE __m256i one_bit(const uint8_t* plane) {
    int32_t word = 0;
    std::memcpy(&word, plane, sizeof word);
    const __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201u));
    const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(word), spread);
    return _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
  }

  /// sums += table[code] for the 32 codes of a run of kBits bits.
  template <unsigned kBits>
  static MNEME_INLINE void add(const int8_t* table, const uint8_t* run, Sums& sums) {
    __m256i low;
    [[maybe_unused]] __m256i masks[4];
    if constexpr (kBits == 8) {
      const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(run));
      low = _mm256_and_si256(codes, _mm256_set1_epi8(15));
      masks[0] = _mm256_slli_epi16(codes, 3);
      masks[1] = _mm256_slli_epi16(codes, 2);
      masks[2] = _mm256_slli_epi16(codes, 1);
      masks[3] = codes;
    } else {
      if constexpr (kBits >= 4) {
        const __m128i nibbles = _mm_loadu_si128(reinterpret_cast<const __m128i*>(run));
        const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(nibbles), _mm_srli_epi16(nibbles, 4), 1);
        low = _mm256_and_si256(both, _mm256_set1_epi8(15));
        if constexpr ((kBits & 2) != 0) {
          const __m256i two = two_bits(run + 16);
          masks[0] = _mm256_slli_epi16(two, 7);
          masks[1] = _mm256_slli_epi16(two, 6);
        }
        if constexpr ((kBits & 1) != 0) masks[kBits - 5] = one_bit(run + 16 + (kBits & 2) * 4);
      } else {
        low = _mm256_setzero_si256();
        if constexpr ((kBits & 2) != 0) low = two_bits(run);
        if constexpr ((kBits & 1) != 0) {
          const __m256i bit = _mm256_and_si256(one_bit(run + (kBits & 2) * 4), _mm256_set1_epi8(kBits & 2 ? 4 : 1));
          low = _mm256_or_si256(low, bit);
        }
      }
    }
    constexpr size_t kPieces = kBits > 4 ? size_t{1} << (kBits - 4) : 1;
    __m256i found[kPieces];
    MNEME_UNROLL for (size_t i = 0; i < kPieces; ++i) found[i] = _mm256_shuffle_epi8(piece(table + 16 * i), low);
    size_t level = 0;
    MNEME_UNROLL for (size_t n = kPieces; n > 1; n /= 2, ++level) {
      MNEME_UNROLL for (size_t i = 0; i < n / 2; ++i) {
        found[i] = _mm256_blendv_epi8(found[2 * i], found[2 * i + 1], masks[level]);
      }
    }
    sums.low = _mm256_add_epi16(sums.low, _mm256_cvtepi8_epi16(_mm256_castsi256_si128(found[0])));
    sums.high = _mm256_add_epi16(sums.high, _mm256_cvtepi8_epi16(_mm256_extracti128_si256(found[0], 1)));
  }

  static MNEME_INLINE void add_scaled(__m128i sums, __m256 factor, float* out) {
    const __m256 values = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(sums));
    _mm256_storeu_ps(out, _mm256_add_ps(_mm256_loadu_ps(out), _mm256_mul_ps(values, factor)));
  }
  /// out[r] += scale * sums[r]
  static MNEME_INLINE void flush(const Sums& sums, float scale, float* out) {
    const __m256 factor = _mm256_set1_ps(scale);
    add_scaled(_mm256_castsi256_si128(sums.low), factor, out);
    add_scaled(_mm256_extracti128_si256(sums.low, 1), factor, out + 8);
    add_scaled(_mm256_castsi256_si128(sums.high), factor, out + 16);
    add_scaled(_mm256_extracti128_si256(sums.high, 1), factor, out + 24);
  }
};

}  // namespace mneme::kernels::products::MNEME_TARGET
