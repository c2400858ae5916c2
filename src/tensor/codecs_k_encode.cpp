#include <algorithm>

#include "tensor/block_fields.h"
#include "tensor/codecs.h"
#include "tensor/k_scales.h"
#include "tensor/scale_fit.h"

namespace mneme::codecs {
namespace {

/// Packs 256 two-bit values as Q2_K and Q3_K keep them: byte 32 h + l holds elements 128 h + l + {0, 32, 64, 96},
/// lowest bits first.
template <typename Code>
void pack_two_bits(Code&& code, std::byte* qs) {
  for (size_t i = 0; i < 64; ++i) {
    const size_t first = 128 * (i / 32) + i % 32;
    store_u8(qs + i, code(first) | code(first + 32) << 2 | code(first + 64) << 4 | code(first + 96) << 6);
  }
}

/// Packs the low four bits of 256 codes as Q4_K and Q5_K keep them: 32 bytes for each 64 elements, low nibbles first.
void pack_nibbles(const uint8_t* codes, std::byte* qs) {
  for (size_t i = 0; i < 128; ++i) {
    const size_t first = 64 * (i / 32) + i % 32;
    store_u8(qs + i, (codes[first] & 15) | (codes[first + 32] & 15) << 4);
  }
}

}  // namespace

void encode_q2_k(const float* in, const float* importance, std::byte* blocks, size_t n) {
  AffineSuper<16> fit;
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 84, in += kSuper) {
    fit_affine_super(in, importance == nullptr ? nullptr : importance + kSuper * b, 3, 15, fit);
    for (size_t k = 0; k < 16; ++k) store_u8(blocks + k, fit.scales[k] | fit.minima[k] << 4);
    pack_two_bits([&](size_t i) { return static_cast<int>(fit.codes[i]); }, blocks + 16);
    store_f16(blocks + 80, fit.d);
    store_f16(blocks + 82, fit.dmin);
  }
}

void encode_q3_k(const float* in, const float* importance, std::byte* blocks, size_t n) {
  SymmetricSuper fit;
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 110, in += kSuper) {
    fit_symmetric_super(in, importance == nullptr ? nullptr : importance + kSuper * b, -4, 3, -32, 31, fit);
    std::fill(blocks, blocks + 32, std::byte{0});
    for (size_t i = 0; i < kSuper; ++i) {
      const int high = fit.codes[i] >= 0 ? 1 : 0;
      blocks[i % 32] |= static_cast<std::byte>(high << (i / 32));
    }
    pack_two_bits([&](size_t i) { return (fit.codes[i] + 4) & 3; }, blocks + 32);
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
    pack_nibbles(fit.codes, blocks + 16);
  }
}

void encode_q5_k(const float* in, const float* importance, std::byte* blocks, size_t n) {
  AffineSuper<32> fit;
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 176, in += kSuper) {
    fit_affine_super(in, importance == nullptr ? nullptr : importance + kSuper * b, 31, 63, fit);
    store_f16(blocks, fit.d);
    store_f16(blocks + 2, fit.dmin);
    pack_q4_scales(fit.scales, fit.minima, blocks + 4);
    for (size_t l = 0; l < 32; ++l) {
      int high = 0;
      for (size_t k = 0; k < 8; ++k) high |= (fit.codes[32 * k + l] >> 4) << k;
      store_u8(blocks + 16 + l, high);
    }
    pack_nibbles(fit.codes, blocks + 48);
  }
}

void encode_q6_k(const float* in, const float* importance, std::byte* blocks, size_t n) {
  SymmetricSuper fit;
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 210, in += kSuper) {
    fit_symmetric_super(in, importance == nullptr ? nullptr : importance + kSuper * b, -32, 31, -128, 127, fit);
    for (size_t half = 0; half < 2; ++half) {
      const int8_t* codes = fit.codes + 128 * half;
      const auto code = [&](size_t i) { return codes[i] + 32; };
      for (size_t l = 0; l < 64; ++l) store_u8(blocks + 64 * half + l, (code(l) & 15) | (code(l + 64) & 15) << 4);
      for (size_t l = 0; l < 32; ++l) {
        store_u8(blocks + 128 + 32 * half + l,
                 code(l) >> 4 | (code(l + 32) >> 4) << 2 | (code(l + 64) >> 4) << 4 | (code(l + 96) >> 4) << 6);
      }
    }
    for (size_t k = 0; k < 16; ++k) store_u8(blocks + 192 + k, fit.scales[k]);
    store_f16(blocks + 208, fit.d);
  }
}

}  // namespace mneme::codecs
