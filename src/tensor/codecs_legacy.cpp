#include <algorithm>
#include <cmath>

#include "tensor/block_fields.h"
#include "tensor/codecs.h"
#include "tensor/scale_fit.h"

namespace mneme::codecs {
namespace {

constexpr size_t kBlock = 32;

/// Four low bits of each code: byte j holds element j in its low and element j + 16 in its high nibble.
void pack_low_nibbles(const int codes[kBlock], std::byte* qs) {
  for (size_t j = 0; j < 16; ++j) store_u8(qs + j, (codes[j] & 15) | (codes[j + 16] & 15) << 4);
}

/// The fifth bits of the codes, element i in bit i.
uint32_t fifth_bits(const int codes[kBlock]) {
  uint32_t bits = 0;
  for (size_t i = 0; i < kBlock; ++i) bits |= static_cast<uint32_t>(codes[i] >> 4 & 1) << i;
  return bits;
}

void unpack_four_bits(const std::byte* qs, int codes[kBlock]) {
  for (size_t j = 0; j < 16; ++j) {
    codes[j] = load_u8(qs + j) & 15;
    codes[j + 16] = load_u8(qs + j) >> 4;
  }
}

void unpack_five_bits(const std::byte* qh, const std::byte* qs, int codes[kBlock]) {
  unpack_four_bits(qs, codes);
  const auto high = load_as<uint32_t>(qh);
  for (size_t i = 0; i < kBlock; ++i) codes[i] |= static_cast<int>((high >> i & 1) << 4);
}

/// Codes 0..2*half-1 of a block without minimum, x ~ d * (code - half). Without importance the element of largest
/// magnitude lands exactly on code 0. Returns d.
float encode_symmetric(const float* x, const float* importance, int half, int codes[kBlock]) {
  const auto offset = static_cast<float>(half), top = static_cast<float>(2 * half - 1);
  float d = signed_peak(x, kBlock) / -offset;
  if (importance != nullptr) {
    float weights[kBlock];
    error_weights(x, importance, kBlock, weights);
    d = fit_symmetric<kBlock>(x, weights, -half, half - 1);
  }
  const float inverse = inverse_or_zero(d);
  for (size_t i = 0; i < kBlock; ++i) {
    codes[i] = static_cast<int>(limit(x[i] * inverse + (offset + 0.5f), 0.0f, top));
  }
  return d;
}

/// Codes 0..top of a block with minimum, x ~ d * code + m. Without importance they span the range of the block.
void encode_affine(const float* x, const float* importance, int top, int codes[kBlock], float* d, float* m) {
  if (importance != nullptr) {
    float weights[kBlock];
    error_weights(x, importance, kBlock, weights);
    const AffineFit fit = fit_affine<kBlock>(x, weights, top, true);
    *d = fit.scale;
    *m = -fit.minimum;
  } else {
    const auto [low, high] = std::minmax_element(x, x + kBlock);
    *d = (*high - *low) / static_cast<float>(top);
    *m = *low;
  }
  const float inverse = inverse_or_zero(*d);
  for (size_t i = 0; i < kBlock; ++i) {
    codes[i] = static_cast<int>(limit((x[i] - *m) * inverse + 0.5f, 0.0f, static_cast<float>(top)));
  }
}

const float* part(const float* importance, size_t block) {
  return importance == nullptr ? nullptr : importance + kBlock * block;
}

}  // namespace

void decode_q4_0(const std::byte* blocks, float* out, size_t n) {
  int codes[kBlock];
  for (size_t b = 0; b < n / kBlock; ++b, blocks += 18, out += kBlock) {
    const float d = load_f16(blocks);
    unpack_four_bits(blocks + 2, codes);
    for (size_t i = 0; i < kBlock; ++i) out[i] = d * static_cast<float>(codes[i] - 8);
  }
}

void encode_q4_0(const float* in, const float* importance, std::byte* blocks, size_t n) {
  int codes[kBlock];
  for (size_t b = 0; b < n / kBlock; ++b, blocks += 18, in += kBlock) {
    store_f16(blocks, encode_symmetric(in, part(importance, b), 8, codes));
    pack_low_nibbles(codes, blocks + 2);
  }
}

void decode_q4_1(const std::byte* blocks, float* out, size_t n) {
  int codes[kBlock];
  for (size_t b = 0; b < n / kBlock; ++b, blocks += 20, out += kBlock) {
    const float d = load_f16(blocks), m = load_f16(blocks + 2);
    unpack_four_bits(blocks + 4, codes);
    for (size_t i = 0; i < kBlock; ++i) out[i] = d * static_cast<float>(codes[i]) + m;
  }
}

void encode_q4_1(const float* in, const float* importance, std::byte* blocks, size_t n) {
  int codes[kBlock];
  for (size_t b = 0; b < n / kBlock; ++b, blocks += 20, in += kBlock) {
    float d = 0.0f, m = 0.0f;
    encode_affine(in, part(importance, b), 15, codes, &d, &m);
    store_f16(blocks, d);
    store_f16(blocks + 2, m);
    pack_low_nibbles(codes, blocks + 4);
  }
}

void decode_q5_0(const std::byte* blocks, float* out, size_t n) {
  int codes[kBlock];
  for (size_t b = 0; b < n / kBlock; ++b, blocks += 22, out += kBlock) {
    const float d = load_f16(blocks);
    unpack_five_bits(blocks + 2, blocks + 6, codes);
    for (size_t i = 0; i < kBlock; ++i) out[i] = d * static_cast<float>(codes[i] - 16);
  }
}

void encode_q5_0(const float* in, const float* importance, std::byte* blocks, size_t n) {
  int codes[kBlock];
  for (size_t b = 0; b < n / kBlock; ++b, blocks += 22, in += kBlock) {
    store_f16(blocks, encode_symmetric(in, part(importance, b), 16, codes));
    store_as(blocks + 2, fifth_bits(codes));
    pack_low_nibbles(codes, blocks + 6);
  }
}

void decode_q5_1(const std::byte* blocks, float* out, size_t n) {
  int codes[kBlock];
  for (size_t b = 0; b < n / kBlock; ++b, blocks += 24, out += kBlock) {
    const float d = load_f16(blocks), m = load_f16(blocks + 2);
    unpack_five_bits(blocks + 4, blocks + 8, codes);
    for (size_t i = 0; i < kBlock; ++i) out[i] = d * static_cast<float>(codes[i]) + m;
  }
}

void encode_q5_1(const float* in, const float* importance, std::byte* blocks, size_t n) {
  int codes[kBlock];
  for (size_t b = 0; b < n / kBlock; ++b, blocks += 24, in += kBlock) {
    float d = 0.0f, m = 0.0f;
    encode_affine(in, part(importance, b), 31, codes, &d, &m);
    store_f16(blocks, d);
    store_f16(blocks + 2, m);
    store_as(blocks + 4, fifth_bits(codes));
    pack_low_nibbles(codes, blocks + 8);
  }
}

void decode_q8_0(const std::byte* blocks, float* out, size_t n) {
  for (size_t b = 0; b < n / kBlock; ++b, blocks += 34, out += kBlock) {
    const float d = load_f16(blocks);
    for (size_t i = 0; i < kBlock; ++i) out[i] = d * static_cast<float>(load_i8(blocks + 2 + i));
  }
}

void encode_q8_0(const float* in, const float*, std::byte* blocks, size_t n) {
  for (size_t b = 0; b < n / kBlock; ++b, blocks += 34, in += kBlock) {
    const float d = std::fabs(signed_peak(in, kBlock)) / 127.0f, inverse = inverse_or_zero(d);
    store_f16(blocks, d);
    for (size_t i = 0; i < kBlock; ++i) {
      // Halves away from zero.
      const float scaled = limit(in[i] * inverse, -127.0f, 127.0f);
      store_u8(blocks + 2 + i, static_cast<int>(std::round(scaled)));
    }
  }
}

}  // namespace mneme::codecs
