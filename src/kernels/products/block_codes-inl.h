#pragma once

#include <cstring>

#include "kernels/products/formats.h"

// Codes of one block of a GGUF row in column order, one byte a column. Compiled once a target: the including file
// defines MNEME_TARGET and the target attributes.
namespace mneme::kernels::products::MNEME_TARGET {

/// Two halves from the low and the high nibbles of n bytes.
inline void nibble_halves(const uint8_t* q, size_t n, uint8_t* codes) {
  for (size_t j = 0; j < n; ++j) codes[j] = q[j] & 15;
  for (size_t j = 0; j < n; ++j) codes[n + j] = q[j] >> 4;
}

/// Adds bit `i` of the 32-bit word at `word` as bit 4 of code i.
inline void add_fifth_bits(const uint8_t* word, uint8_t* codes) {
  for (size_t i = 0; i < 32; ++i) codes[i] |= static_cast<uint8_t>(((word[i / 8] >> (i % 8)) & 1) << 4);
}

inline void block_codes(Q4_0, const uint8_t* block, uint8_t* codes) {
  nibble_halves(block + 2, 16, codes);
}
inline void block_codes(Q4_1, const uint8_t* block, uint8_t* codes) {
  nibble_halves(block + 4, 16, codes);
}
inline void block_codes(Iq4Nl, const uint8_t* block, uint8_t* codes) {
  nibble_halves(block + 2, 16, codes);
}
inline void block_codes(Mxfp4, const uint8_t* block, uint8_t* codes) {
  nibble_halves(block + 1, 16, codes);
}

inline void block_codes(Nvfp4, const uint8_t* block, uint8_t* codes) {
  for (size_t b = 0; b < 4; ++b) nibble_halves(block + 4 + 8 * b, 8, codes + 16 * b);
}

inline void block_codes(Q5_0, const uint8_t* block, uint8_t* codes) {
  nibble_halves(block + 6, 16, codes);
  add_fifth_bits(block + 2, codes);
}

inline void block_codes(Q5_1, const uint8_t* block, uint8_t* codes) {
  nibble_halves(block + 8, 16, codes);
  add_fifth_bits(block + 4, codes);
}

inline void block_codes(Q8_0, const uint8_t* block, uint8_t* codes) {
  for (size_t i = 0; i < 32; ++i) codes[i] = block[2 + i] ^ 0x80;
}

/// 64 bytes with two-bit fields: byte 32h + l holds columns 128h + 32j + l in bits 2j, 2j + 1.
inline void two_bit_codes(const uint8_t* q, uint8_t* codes) {
  for (size_t h = 0; h < 2; ++h) {
    for (size_t j = 0; j < 4; ++j) {
      for (size_t l = 0; l < 32; ++l) codes[128 * h + 32 * j + l] = (q[32 * h + l] >> (2 * j)) & 3;
    }
  }
}

inline void block_codes(Q2_K, const uint8_t* block, uint8_t* codes) {
  two_bit_codes(block + 16, codes);
}
inline void block_codes(Tq2_0, const uint8_t* block, uint8_t* codes) {
  two_bit_codes(block, codes);
}

inline void block_codes(Q3_K, const uint8_t* block, uint8_t* codes) {
  two_bit_codes(block + 32, codes);
  for (size_t k = 0; k < 8; ++k) {
    for (size_t l = 0; l < 32; ++l) codes[32 * k + l] |= static_cast<uint8_t>(((block[l] >> k) & 1) << 2);
  }
}

inline void block_codes(Q4_K, const uint8_t* block, uint8_t* codes) {
  for (size_t c = 0; c < 4; ++c) nibble_halves(block + 16 + 32 * c, 32, codes + 64 * c);
}

inline void block_codes(Q5_K, const uint8_t* block, uint8_t* codes) {
  for (size_t c = 0; c < 4; ++c) nibble_halves(block + 48 + 32 * c, 32, codes + 64 * c);
  for (size_t k = 0; k < 8; ++k) {
    for (size_t l = 0; l < 32; ++l) codes[32 * k + l] |= static_cast<uint8_t>(((block[16 + l] >> k) & 1) << 4);
  }
}

inline void block_codes(Q6_K, const uint8_t* block, uint8_t* codes) {
  for (size_t h = 0; h < 2; ++h) {
    nibble_halves(block + 64 * h, 64, codes + 128 * h);
    for (size_t j = 0; j < 4; ++j) {
      for (size_t l = 0; l < 32; ++l) {
        codes[128 * h + 32 * j + l] |= static_cast<uint8_t>(((block[128 + 32 * h + l] >> (2 * j)) & 3) << 4);
      }
    }
  }
}

inline void block_codes(Iq4Xs, const uint8_t* block, uint8_t* codes) {
  for (size_t b = 0; b < 8; ++b) nibble_halves(block + 8 + 16 * b, 16, codes + 32 * b);
}

inline void block_codes(BitMod4, const uint8_t* block, uint8_t* codes) {
  nibble_halves(block + 2, 64, codes);
}

inline void block_codes(BitMod3, const uint8_t* block, uint8_t* codes) {
  for (size_t part = 0; part < 4; ++part) {
    for (size_t l = 0; l < 32; ++l) codes[32 * part + l] = (block[2 + l] >> (2 * part)) & 3;
  }
  for (size_t i = 0; i < 128; ++i) codes[i] |= static_cast<uint8_t>(((block[34 + i / 8] >> (i % 8)) & 1) << 2);
}

template <int kBits>
inline void block_codes(Bipolar<kBits>, const uint8_t* block, uint8_t* codes) {
  for (size_t i = 0; i < 128; ++i) codes[i] = block[2 + i / 8] >> (i % 8) & 1;
  for (size_t b = 1; b < kBits; ++b) {
    const uint8_t* plane = block + 2 + 16 * b;
    for (size_t i = 0; i < 128; ++i) codes[i] |= static_cast<uint8_t>((plane[i / 8] >> (i % 8) & 1) << b);
  }
}

inline void block_codes(Q2_0, const uint8_t* block, uint8_t* codes) {
  for (size_t i = 0; i < 64; ++i) codes[i] = block[2 + i / 4] >> (2 * (i % 4)) & 3;
}

inline void block_codes(Q1_0, const uint8_t* block, uint8_t* codes) {
  for (size_t i = 0; i < 128; ++i) codes[i] = block[2 + i / 8] >> (i % 8) & 1;
}

/// n bytes of five trits each, `trits` of them used: trit t of byte j is column n * t + j.
inline void base3_codes(const uint8_t* q, size_t n, size_t trits, uint8_t* codes) {
  unsigned power = 1;
  for (size_t t = 0; t < trits; ++t, power *= 3) {
    for (size_t j = 0; j < n; ++j) codes[n * t + j] = static_cast<uint8_t>((((q[j] * power) & 255u) * 3) >> 8);
  }
}

inline void block_codes(Tq1_0, const uint8_t* block, uint8_t* codes) {
  base3_codes(block, 32, 5, codes);
  base3_codes(block + 32, 16, 5, codes + 160);
  base3_codes(block + 48, 4, 4, codes + 240);
}

}  // namespace mneme::kernels::products::MNEME_TARGET
