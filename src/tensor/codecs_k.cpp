#include "tensor/block_fields.h"
#include "tensor/codecs.h"
#include "tensor/k_scales.h"

namespace mneme::codecs {
void decode_q2_k(const std::byte* blocks, float* out, size_t n) {
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 84, out += kSuper) {
    const std::byte* scales = blocks;
    const std::byte* qs = blocks + 16;
    const float d = load_f16(blocks + 80), dmin = load_f16(blocks + 82);
    for (size_t sub = 0; sub < 16; ++sub) {
      const int s = load_u8(scales + sub);
      const float scale = d * static_cast<float>(s & 15), minimum = dmin * static_cast<float>(s >> 4);
      const std::byte* from = qs + 32 * (sub / 8) + 16 * (sub % 2);
      const int shift = static_cast<int>(sub % 8 / 2 * 2);
      for (size_t i = 0; i < 16; ++i) {
        out[16 * sub + i] = scale * static_cast<float>((load_u8(from + i) >> shift) & 3) - minimum;
      }
    }
  }
}

void decode_q3_k(const std::byte* blocks, float* out, size_t n) {
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 110, out += kSuper) {
    const std::byte* hmask = blocks;
    const std::byte* qs = blocks + 32;
    const float d = load_f16(blocks + 108);
    int scales[16];
    unpack_q3_scales(blocks + 96, scales);
    for (size_t sub = 0; sub < 16; ++sub) {
      const float scale = d * static_cast<float>(scales[sub]);
      const size_t first = 16 * (sub % 2);
      const int shift = static_cast<int>(sub % 8 / 2 * 2), bit = static_cast<int>(sub / 2);
      for (size_t i = 0; i < 16; ++i) {
        const int low = (load_u8(qs + 32 * (sub / 8) + first + i) >> shift) & 3;
        const int high = (load_u8(hmask + first + i) >> bit) & 1;
        out[16 * sub + i] = scale * static_cast<float>(low + 4 * high - 4);
      }
    }
  }
}

void decode_q4_k(const std::byte* blocks, float* out, size_t n) {
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 144, out += kSuper) {
    const float d = load_f16(blocks), dmin = load_f16(blocks + 2);
    int scales[8], minima[8];
    unpack_q4_scales(blocks + 4, scales, minima);
    for (size_t sub = 0; sub < 8; ++sub) {
      const float scale = d * static_cast<float>(scales[sub]), minimum = dmin * static_cast<float>(minima[sub]);
      const std::byte* qs = blocks + 16 + 32 * (sub / 2);
      const int shift = static_cast<int>(4 * (sub % 2));
      for (size_t i = 0; i < 32; ++i) {
        out[32 * sub + i] = scale * static_cast<float>((load_u8(qs + i) >> shift) & 15) - minimum;
      }
    }
  }
}

void decode_q5_k(const std::byte* blocks, float* out, size_t n) {
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 176, out += kSuper) {
    const float d = load_f16(blocks), dmin = load_f16(blocks + 2);
    const std::byte* qh = blocks + 16;
    int scales[8], minima[8];
    unpack_q4_scales(blocks + 4, scales, minima);
    for (size_t sub = 0; sub < 8; ++sub) {
      const float scale = d * static_cast<float>(scales[sub]), minimum = dmin * static_cast<float>(minima[sub]);
      const std::byte* qs = blocks + 48 + 32 * (sub / 2);
      const int shift = static_cast<int>(4 * (sub % 2)), bit = static_cast<int>(sub);
      for (size_t i = 0; i < 32; ++i) {
        const int q = ((load_u8(qs + i) >> shift) & 15) + 16 * ((load_u8(qh + i) >> bit) & 1);
        out[32 * sub + i] = scale * static_cast<float>(q) - minimum;
      }
    }
  }
}

void decode_q6_k(const std::byte* blocks, float* out, size_t n) {
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 210, out += kSuper) {
    const std::byte* ql = blocks;
    const std::byte* qh = blocks + 128;
    const std::byte* scales = blocks + 192;
    const float d = load_f16(blocks + 208);
    for (size_t sub = 0; sub < 16; ++sub) {
      const float scale = d * static_cast<float>(load_i8(scales + sub));
      const size_t half = sub / 8, j = sub % 8 / 2, first = 16 * (sub % 2);
      const std::byte* low = ql + 64 * half + 32 * (j & 1) + first;
      const std::byte* high = qh + 32 * half + first;
      const int low_shift = static_cast<int>(4 * (j >> 1)), high_shift = static_cast<int>(2 * j);
      for (size_t i = 0; i < 16; ++i) {
        const int q = ((load_u8(low + i) >> low_shift) & 15) | ((load_u8(high + i) >> high_shift) & 3) << 4;
        out[16 * sub + i] = scale * static_cast<float>(q - 32);
      }
    }
  }
}

}  // namespace mneme::codecs
