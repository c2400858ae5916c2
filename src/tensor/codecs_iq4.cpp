#include <algorithm>
#include <array>
#include <cmath>

#include "tensor/block_fields.h"
#include "tensor/codecs.h"
#include "tensor/scale_fit.h"

namespace mneme::codecs {
namespace {

constexpr size_t kBlock = 32;
constexpr std::array<int, 16> kLevels = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/// Nearest level for every half step of [-128, 128): the borders between levels all lie on half steps.
struct NearestLevel {
  std::array<uint8_t, 512> code{};
  std::array<float, 512> value{};

  constexpr NearestLevel() {
    for (size_t i = 0; i < code.size(); ++i) {
      const int doubled = static_cast<int>(i) - 256;  // Stands for doubled / 2 <= v < (doubled + 1) / 2.
      size_t best = 0;
      for (size_t k = 1; k < kLevels.size(); ++k) {
        if (doubled >= kLevels[k - 1] + kLevels[k]) best = k;
      }
      code[i] = static_cast<uint8_t>(best);
      value[i] = static_cast<float>(kLevels[best]);
    }
  }

  static size_t slot(float v) { return static_cast<size_t>(limit(2.0f * v, -256.0f, 255.0f) + 256.0f); }
};
constexpr NearestLevel kNearest;

/// Scale of x ~ scale * level over a block of 32 by weighted least squares over a grid of scales.
float fit_levels(const float* x, const float* weights) {
  const float peak = signed_peak(x, kBlock);
  if (peak == 0.0f) return 0.0f;
  double best_gain = 0.0, best_scale = 0.0;
  const auto consider = [&](float inverse) {
    float squares = 0.0f, products = 0.0f;
    for (size_t i = 0; i < kBlock; ++i) {
      const float level = kNearest.value[NearestLevel::slot(x[i] * inverse)];
      const float weighted = weights[i] * level;
      squares += weighted * level;
      products += weighted * x[i];
    }
    const double gain = squares > 0.0f ? static_cast<double>(products) * static_cast<double>(products) / squares : 0.0;
    if (gain <= best_gain) return false;
    best_gain = gain;
    best_scale = static_cast<double>(products) / squares;
    return true;
  };
  for (int step = -8; step <= 8; ++step) {
    consider((static_cast<float>(kLevels.front()) + 1.5f * static_cast<float>(step)) / peak);
    consider((static_cast<float>(kLevels.back()) + 1.5f * static_cast<float>(step)) / peak);
  }
  if (best_scale == 0.0) return peak / static_cast<float>(kLevels.front());
  for (int round = 0; round < 3; ++round) {
    if (!consider(static_cast<float>(1.0 / best_scale))) break;
  }
  return static_cast<float>(best_scale);
}

/// Codes of a block as nibbles: byte j holds element j low and element j + 16 high.
void pack_block(const uint8_t* codes, std::byte* qs) {
  for (size_t j = 0; j < 16; ++j) store_u8(qs + j, codes[j] | codes[j + 16] << 4);
}

/// The same for the nearest levels of a scale.
void store_nearest(const float* x, float scale, std::byte* qs) {
  const float inverse = inverse_or_zero(scale);
  uint8_t codes[kBlock];
  for (size_t j = 0; j < kBlock; ++j) codes[j] = kNearest.code[NearestLevel::slot(x[j] * inverse)];
  pack_block(codes, qs);
}

double level_error(const float* x, const float* weights, float scale) {
  const float inverse = inverse_or_zero(scale);
  float sum = 0.0f;
  for (size_t i = 0; i < kBlock; ++i) {
    const float difference = x[i] - scale * kNearest.value[NearestLevel::slot(x[i] * inverse)];
    sum += weights[i] * difference * difference;
  }
  return static_cast<double>(sum);
}

void decode_block(const std::byte* qs, float scale, float* out) {
  for (size_t j = 0; j < 16; ++j) {
    const int byte = load_u8(qs + j);
    out[j] = scale * static_cast<float>(kLevels[static_cast<size_t>(byte & 15)]);
    out[j + 16] = scale * static_cast<float>(kLevels[static_cast<size_t>(byte >> 4)]);
  }
}

}  // namespace

void decode_iq4_nl(const std::byte* blocks, float* out, size_t n) {
  for (size_t b = 0; b < n / kBlock; ++b, blocks += 18, out += kBlock) {
    decode_block(blocks + 2, load_f16(blocks), out);
  }
}

void encode_iq4_nl(const float* in, const float* importance, std::byte* blocks, size_t n) {
  float weights[kBlock];
  for (size_t b = 0; b < n / kBlock; ++b, blocks += 18, in += kBlock) {
    error_weights(in, importance == nullptr ? nullptr : importance + kBlock * b, kBlock, weights);
    const float d = store_f16(blocks, fit_levels(in, weights));
    store_nearest(in, d, blocks + 2);
  }
}

void decode_iq4_xs(const std::byte* blocks, float* out, size_t n) {
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 136, out += kSuper) {
    const float d = load_f16(blocks);
    const int high = load_as<uint16_t>(blocks + 2);
    for (size_t k = 0; k < 8; ++k) {
      const int low = (load_u8(blocks + 4 + k / 2) >> (4 * (k % 2))) & 15;
      const int scale = (low | ((high >> (2 * k)) & 3) << 4) - 32;
      decode_block(blocks + 8 + 16 * k, d * static_cast<float>(scale), out + kBlock * k);
    }
  }
}

void store_iq4_xs_codes(const uint8_t* codes, std::byte* block) {
  for (size_t k = 0; k < 8; ++k) pack_block(codes + kBlock * k, block + 8 + 16 * k);
}

void encode_iq4_xs(const float* in, const float* importance, std::byte* blocks, size_t n) {
  float weights[kSuper], scales[8];
  for (size_t b = 0; b < n / kSuper; ++b, blocks += 136, in += kSuper) {
    error_weights(in, importance == nullptr ? nullptr : importance + kSuper * b, kSuper, weights);
    for (size_t k = 0; k < 8; ++k) scales[k] = fit_levels(in + kBlock * k, weights + kBlock * k);
    const float d = store_f16(blocks, signed_peak(scales, 8) / -32.0f);
    int high = 0;
    std::fill(blocks + 4, blocks + 8, std::byte{0});
    for (size_t k = 0; k < 8; ++k) {
      const float* x = in + kBlock * k;
      const int rounded = static_cast<int>(round_small(limit(scales[k] * inverse_or_zero(d), -32.0f, 31.0f)));
      int scale = rounded;
      double least = level_error(x, weights + kBlock * k, d * static_cast<float>(rounded));
      for (int other : {rounded - 1, rounded + 1}) {
        if (other < -32 || other > 31) continue;
        const double error = level_error(x, weights + kBlock * k, d * static_cast<float>(other));
        if (error < least) {
          least = error;
          scale = other;
        }
      }
      const int stored = scale + 32;
      blocks[4 + k / 2] |= static_cast<std::byte>((stored & 15) << (4 * (k % 2)));
      high |= (stored >> 4) << (2 * k);
      store_nearest(x, d * static_cast<float>(scale), blocks + 8 + 16 * k);
    }
    store_as(blocks + 2, static_cast<uint16_t>(high));
  }
}

}  // namespace mneme::codecs
