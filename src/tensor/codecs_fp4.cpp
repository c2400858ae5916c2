#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "tensor/block_fields.h"
#include "tensor/codecs.h"

namespace mneme::codecs {
namespace {

/// The sixteen E2M1 values, doubled so that they are integers.
constexpr std::array<float, 16> kDoubledE2m1 = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/// 2^(e - 128): the shared exponent of MXFP4 with the halving of the doubled table in it.
float mxfp4_scale(int e) {
  return std::ldexp(1.0f, e - 128);
}

/// Half of an unsigned E4M3 value; its NaN pattern reads as zero.
float nvfp4_scale(int x) {
  if (x == 0 || x == 0x7f) return 0.0f;
  const int exponent = (x >> 3) & 15, mantissa = x & 7;
  const float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                    : std::ldexp(1.0f + static_cast<float>(mantissa) / 8.0f, exponent - 7);
  return 0.5f * value;
}

/// Nearest unsigned E4M3 pattern of v >= 0, halves up, at most 448.
int encode_ue4m3(float v) {
  if (!(v > 0.0f)) return 0;
  v = std::min(v, 448.0f);
  int exponent = std::max(std::ilogb(v), -6);
  const int steps =
      static_cast<int>(std::floor(std::ldexp(v, 3 - exponent) + 0.5f));  // 8 to 16, below 8 when subnormal
  if (steps < 8) return steps;
  if (steps == 16) return std::min((exponent + 8) << 3, 0x7e);
  return std::min((exponent + 7) << 3 | (steps - 8), 0x7e);
}

/// Index of the value of the table times `scale` that is nearest to x; the lowest index on ties.
int nearest_e2m1(float x, float scale) {
  int best = 0;
  float least = std::fabs(kDoubledE2m1[0] * scale - x);
  for (size_t i = 1; i < kDoubledE2m1.size(); ++i) {
    const float distance = std::fabs(kDoubledE2m1[i] * scale - x);
    if (distance < least) {
      least = distance;
      best = static_cast<int>(i);
    }
  }
  return best;
}

}  // namespace

void decode_mxfp4(const std::byte* blocks, float* out, size_t n) {
  for (size_t b = 0; b < n / 32; ++b, blocks += 17, out += 32) {
    const float scale = mxfp4_scale(load_u8(blocks));
    for (size_t j = 0; j < 16; ++j) {
      const int byte = load_u8(blocks + 1 + j);
      out[j] = scale * kDoubledE2m1[static_cast<size_t>(byte & 15)];
      out[j + 16] = scale * kDoubledE2m1[static_cast<size_t>(byte >> 4)];
    }
  }
}

void encode_mxfp4(const float* in, const float*, std::byte* blocks, size_t n) {
  for (size_t b = 0; b < n / 32; ++b, blocks += 17, in += 32) {
    const float peak = std::min(std::fabs(signed_peak(in, 32)), std::numeric_limits<float>::max());
    const int e = peak > 0.0f ? std::clamp(std::ilogb(peak) - 2 + 127, 0, 254) : 0;
    const float scale = mxfp4_scale(e);
    store_u8(blocks, e);
    for (size_t j = 0; j < 16; ++j) {
      store_u8(blocks + 1 + j, nearest_e2m1(in[j], scale) | nearest_e2m1(in[j + 16], scale) << 4);
    }
  }
}

void decode_nvfp4(const std::byte* blocks, float* out, size_t n) {
  for (size_t b = 0; b < n / 64; ++b, blocks += 36, out += 64) {
    for (size_t sub = 0; sub < 4; ++sub) {
      const float scale = nvfp4_scale(load_u8(blocks + sub));
      for (size_t j = 0; j < 8; ++j) {
        const int byte = load_u8(blocks + 4 + 8 * sub + j);
        out[16 * sub + j] = scale * kDoubledE2m1[static_cast<size_t>(byte & 15)];
        out[16 * sub + j + 8] = scale * kDoubledE2m1[static_cast<size_t>(byte >> 4)];
      }
    }
  }
}

void store_nvfp4_codes(const uint8_t* codes, std::byte* block) {
  for (size_t i = 0; i < 32; ++i) {
    const uint8_t* sub = codes + 16 * (i / 8) + i % 8;
    store_u8(block + 4 + i, sub[0] | sub[8] << 4);
  }
}

void encode_nvfp4(const float* in, const float*, std::byte* blocks, size_t n) {
  uint8_t codes[64];
  for (size_t b = 0; b < n / 64; ++b, blocks += 36, in += 64) {
    for (size_t sub = 0; sub < 4; ++sub) {
      const float* x = in + 16 * sub;
      const int code = encode_ue4m3(std::fabs(signed_peak(x, 16)) / 6.0f);
      const float scale = nvfp4_scale(code);
      store_u8(blocks + sub, code);
      for (size_t j = 0; j < 16; ++j) codes[16 * sub + j] = static_cast<uint8_t>(nearest_e2m1(x[j], scale));
    }
    store_nvfp4_codes(codes, blocks);
  }
}

}  // namespace mneme::codecs
