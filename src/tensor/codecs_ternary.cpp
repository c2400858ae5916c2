#include <algorithm>
#include <array>
#include <cmath>

#include "tensor/block_fields.h"
#include "tensor/codecs.h"

namespace mneme::codecs {
namespace {

/// Nearest integer, halves away from zero.
int round_away(float v) {
  return static_cast<int>(std::lround(v));
}

float peak_magnitude(const float* x, size_t n) {
  return std::fabs(signed_peak(x, n));
}

/// Code 0, 1 or 2 of a ternary element.
int trit_of(float x, float inverse) {
  return std::clamp(round_away(x * inverse) + 1, 0, 2);
}

/// TQ1_0 keeps five base-3 digits in a byte as a fraction of 256, first digit first: multiplying by 3 moves the next
/// digit above the point. Digit n of a group is element first + n * stride + index of the byte.
struct DigitGroup {
  size_t first_byte, n_bytes, first_element, n_digits;
};
constexpr std::array<DigitGroup, 3> kDigitGroups = {{{0, 32, 0, 5}, {32, 16, 160, 5}, {48, 4, 240, 4}}};
constexpr std::array<int, 5> kPowersOf3 = {1, 3, 9, 27, 81};

}  // namespace

void decode_tq1_0(const std::byte* blocks, float* out, size_t n) {
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 54, out += kSuper) {
    const float d = load_f16(blocks + 52);
    for (const DigitGroup& group : kDigitGroups) {
      for (size_t digit = 0; digit < group.n_digits; ++digit) {
        for (size_t i = 0; i < group.n_bytes; ++i) {
          const int shifted = (load_u8(blocks + group.first_byte + i) * kPowersOf3[digit]) & 255;
          out[group.first_element + digit * group.n_bytes + i] = d * static_cast<float>((shifted * 3 >> 8) - 1);
        }
      }
    }
  }
}

void encode_tq1_0(const float* in, const float*, std::byte* blocks, size_t n) {
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 54, in += kSuper) {
    const float d = peak_magnitude(in, kSuper), inverse = inverse_or_zero(d);
    for (const DigitGroup& group : kDigitGroups) {
      for (size_t i = 0; i < group.n_bytes; ++i) {
        int number = 0;
        for (size_t digit = 0; digit < group.n_digits; ++digit) {
          number += trit_of(in[group.first_element + digit * group.n_bytes + i], inverse) * kPowersOf3[4 - digit];
        }
        store_u8(blocks + group.first_byte + i, (number * 256 + 242) / 243);
      }
    }
    store_f16(blocks + 52, d);
  }
}

void decode_tq2_0(const std::byte* blocks, float* out, size_t n) {
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 66, out += kSuper) {
    const float d = load_f16(blocks + 64);
    for (size_t i = 0; i < kSuper; ++i) {
      const int code = (load_u8(blocks + 32 * (i / 128) + i % 32) >> (2 * (i % 128 / 32))) & 3;
      out[i] = d * static_cast<float>(code - 1);
    }
  }
}

void encode_tq2_0(const float* in, const float*, std::byte* blocks, size_t n) {
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 66, in += kSuper) {
    const float d = peak_magnitude(in, kSuper), inverse = inverse_or_zero(d);
    for (size_t i = 0; i < 64; ++i) {
      const float* group = in + 128 * (i / 32) + i % 32;
      int byte = 0;
      for (size_t level = 0; level < 4; ++level) byte |= trit_of(group[32 * level], inverse) << (2 * level);
      store_u8(blocks + i, byte);
    }
    store_f16(blocks + 64, d);
  }
}

void decode_q1_0(const std::byte* blocks, float* out, size_t n) {
  for (size_t b = 0; b < n / 128; ++b, blocks += 18, out += 128) {
    const float d = load_f16(blocks);
    for (size_t i = 0; i < 128; ++i) out[i] = (load_u8(blocks + 2 + i / 8) >> (i % 8)) & 1 ? d : -d;
  }
}

void encode_q1_0(const float* in, const float*, std::byte* blocks, size_t n) {
  for (size_t b = 0; b < n / 128; ++b, blocks += 18, in += 128) {
    float sum = 0.0f;
    for (size_t i = 0; i < 128; ++i) sum += std::fabs(in[i]);
    store_f16(blocks, sum / 128.0f);
    for (size_t i = 0; i < 16; ++i) {
      int byte = 0;
      for (size_t bit = 0; bit < 8; ++bit) byte |= (in[8 * i + bit] >= 0.0f ? 1 : 0) << bit;
      store_u8(blocks + 2 + i, byte);
    }
  }
}

void decode_q2_0(const std::byte* blocks, float* out, size_t n) {
  for (size_t b = 0; b < n / 64; ++b, blocks += 18, out += 64) {
    const float d = load_f16(blocks);
    for (size_t i = 0; i < 64; ++i) {
      out[i] = d * static_cast<float>(((load_u8(blocks + 2 + i / 4) >> (2 * (i % 4))) & 3) - 1);
    }
  }
}

void encode_q2_0(const float* in, const float*, std::byte* blocks, size_t n) {
  for (size_t b = 0; b < n / 64; ++b, blocks += 18, in += 64) {
    const float d = peak_magnitude(in, 64), inverse = inverse_or_zero(d);
    for (size_t i = 0; i < 16; ++i) {
      int byte = 0;
      for (size_t k = 0; k < 4; ++k) byte |= trit_of(in[4 * i + k], inverse) << (2 * k);
      store_u8(blocks + 2 + i, byte);
    }
    store_f16(blocks, d);
  }
}

}  // namespace mneme::codecs
