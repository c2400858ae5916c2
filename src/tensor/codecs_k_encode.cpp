#include "tensor/block_fields.h"
#include "tensor/codecs.h"
#include "tensor/k_scales.h"
#include "tensor/scale_fit.h"

namespace mneme::codecs {
namespace {

/// Packs the low two bits of 256 codes as Q2_K and Q3_K keep them: byte 32 h + l holds elements 128 h + l + {0, 32, 64,
/// 96}, lowest bits first.
void pack_two_bits(const uint8_t* codes, std::byte* qs) {
  for (size_t i = 0; i < 64; ++i) {
    const uint8_t* first = codes + 128 * (i / 32) + i % 32;
    store_u8(qs + i, (first[0] & 3) | (first[32] & 3) << 2 | (first[64] & 3) << 4 | (first[96] & 3) << 6);
  }
}

/// Packs the low four bits of 256 codes as Q4_K and Q5_K keep them: 32 bytes for each 64 elements, low nibbles first.
void pack_nibbles(const uint8_t* codes, std::byte* qs) {
  for (size_t i = 0; i < 128; ++i) {
    const size_t first = 64 * (i / 32) + i % 32;
    store_u8(qs + i, (codes[first] & 15) | (codes[first + 32] & 15) << 4);
  }
}

/// Packs bit `bit` of 256 codes: bit k of byte l belongs to element 32 k + l.
void pack_one_bit(const uint8_t* codes, int bit, std::byte* qh) {
  for (size_t l = 0; l < 32; ++l) {
    int byte = 0;
    for (size_t k = 0; k < 8; ++k) byte |= (codes[32 * k + l] >> bit & 1) << k;
    store_u8(qh + l, byte);
  }
}

/// Signed codes from `least` on as codes from 0 on.
struct ShiftedCodes {
  uint8_t codes[kSuper];

  ShiftedCodes(const SymmetricSuper& fit, int least) {
    for (size_t i = 0; i < kSuper; ++i) codes[i] = static_cast<uint8_t>(fit.codes[i] - least);
  }
};

}  // namespace

void store_q2_k_codes(const uint8_t* codes, std::byte* block) {
  pack_two_bits(codes, block + 16);
}

void store_q3_k_codes(const uint8_t* codes, std::byte* block) {
  pack_one_bit(codes, 2, block);
  pack_two_bits(codes, block + 32);
}

void store_q4_k_codes(const uint8_t* codes, std::byte* block) {
  pack_nibbles(codes, block + 16);
}

void store_q5_k_codes(const uint8_t* codes, std::byte* block) {
  pack_one_bit(codes, 4, block + 16);
  pack_nibbles(codes, block + 48);
}

void store_q6_k_codes(const uint8_t* codes, std::byte* block) {
  for (size_t half = 0; half < 2; ++half) {
    const uint8_t* code = codes + 128 * half;
    for (size_t l = 0; l < 64; ++l) store_u8(block + 64 * half + l, (code[l] & 15) | (code[l + 64] & 15) << 4);
    for (size_t l = 0; l < 32; ++l) {
      store_u8(block + 128 + 32 * half + l,
               code[l] >> 4 | (code[l + 32] >> 4) << 2 | (code[l + 64] >> 4) << 4 | (code[l + 96] >> 4) << 6);
    }
  }
}

void encode_q2_k(const float* in, const float* importance, std::byte* blocks, size_t n) {
  AffineSuper<16> fit;
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 84, in += kSuper) {
    fit_affine_super(in, importance == nullptr ? nullptr : importance + kSuper * b, 3, 15, fit);
    for (size_t k = 0; k < 16; ++k) store_u8(blocks + k, fit.scales[k] | fit.minima[k] << 4);
    store_q2_k_codes(fit.codes, blocks);
    store_f16(blocks + 80, fit.d);
    store_f16(blocks + 82, fit.dmin);
  }
}

void encode_q3_k(const float* in, const float* importance, std::byte* blocks, size_t n) {
  SymmetricSuper fit;
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 110, in += kSuper) {
    fit_symmetric_super(in, importance == nullptr ? nullptr : importance + kSuper * b, -4, 3, -32, 31, fit);
    store_q3_k_codes(ShiftedCodes(fit, -4).codes, blocks);
    pack_q3_scales(fit.scales, blocks + 96);
    store_f16(blocks + 108, fit.d);
  }
}

void encode_q4_k(const float* in, const float* importance, std::byte* blocks, size_t n) {
  AffineSuper<32> fit;
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 144, in += kSuper) {
    fit_affine_super(in, importance == nullptr ? nullptr : importance + kSuper * b, 15, 63, fit);
    store_f16(blocks, fit.d);
    store_f16(blocks + 2, fit.dmin);
    pack_q4_scales(fit.scales, fit.minima, blocks + 4);
    store_q4_k_codes(fit.codes, blocks);
  }
}

void encode_q5_k(const float* in, const float* importance, std::byte* blocks, size_t n) {
  AffineSuper<32> fit;
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 176, in += kSuper) {
    fit_affine_super(in, importance == nullptr ? nullptr : importance + kSuper * b, 31, 63, fit);
    store_f16(blocks, fit.d);
    store_f16(blocks + 2, fit.dmin);
    pack_q4_scales(fit.scales, fit.minima, blocks + 4);
    store_q5_k_codes(fit.codes, blocks);
  }
}

void encode_q6_k(const float* in, const float* importance, std::byte* blocks, size_t n) {
  SymmetricSuper fit;
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 210, in += kSuper) {
    fit_symmetric_super(in, importance == nullptr ? nullptr : importance + kSuper * b, -32, 31, -128, 127, fit);
    store_q6_k_codes(ShiftedCodes(fit, -32).codes, blocks);
    for (size_t k = 0; k < 16; ++k) store_u8(blocks + 192 + k, fit.scales[k]);
    store_f16(blocks + 208, fit.d);
  }
}

}  // namespace mneme::codecs
