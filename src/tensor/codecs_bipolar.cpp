#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "tensor/bipolar.h"
#include "tensor/block_fields.h"
#include "tensor/codecs.h"

namespace mneme {
namespace bipolar {
namespace {

constexpr size_t kPlaneBytes = kGroup / 8;

/// Codes for a scale, and the weighted squared error of the result.
double quantise(int bits, float scale, const float* w, const float* importance, uint8_t* codes) {
  const auto top = static_cast<float>(largest(bits));
  const float inverse = codecs::inverse_or_zero(scale);
  double error = 0;
  for (size_t i = 0; i < kGroup; ++i) {
    const float code = codecs::limit(std::floor((w[i] * inverse + top) * 0.5f + 0.5f), 0.0f, top);
    codes[i] = static_cast<uint8_t>(code);
    const float difference = w[i] - scale * (2 * code - top);
    error += static_cast<double>(difference * difference * (importance == nullptr ? 1.0f : importance[i]));
  }
  return error;
}

float stored(float scale) {
  return f16_to_f32(f32_to_f16(scale));
}

inline void pack(unsigned bits, float scale, const uint8_t* codes, std::byte* block) {
  codecs::store_f16(block, scale);
  for (unsigned b = 0; b < bits; ++b) {
    for (size_t i = 0; i < kGroup; i += 8) {
      int byte = 0;
      for (size_t j = 0; j < 8; ++j) byte |= (codes[i + j] >> b & 1) << j;
      codecs::store_u8(block + 2 + b * kPlaneBytes + i / 8, byte);
    }
  }
}

}  // namespace

void pack_group(int bits, float scale, const uint8_t* codes, std::byte* block) {
  pack(static_cast<unsigned>(bits), scale, codes, block);
}

float choose_codes(int bits, const float* w, const float* importance, uint8_t* codes) {
  if (bits == 1) {
    double sum = 0, weights = 0;
    for (size_t i = 0; i < kGroup; ++i) {
      const double h = importance == nullptr ? 1.0 : static_cast<double>(importance[i]);
      sum += h * std::abs(static_cast<double>(w[i]));
      weights += h;
    }
    const float scale = stored(weights > 0 ? static_cast<float>(sum / weights) : 0.0f);
    quantise(1, scale, w, importance, codes);
    return scale;
  }
  const float rule = std::fabs(codecs::signed_peak(w, kGroup)) / static_cast<float>(largest(bits));
  float best = stored(rule);
  double least = quantise(bits, best, w, importance, codes);
  if (importance != nullptr) {
    for (int step = 1; step < 14; ++step) {  // down to 0.35, where 2 bits may want to be
      uint8_t tried[kGroup];
      const float scale = stored(rule * (1.0f - 0.05f * static_cast<float>(step)));
      const double error = quantise(bits, scale, w, importance, tried);
      if (error >= least) continue;
      least = error;
      best = scale;
      std::memcpy(codes, tried, kGroup);
    }
  }
  return best;
}

void drop_planes(int bits, int fewer, const std::byte* blocks, std::byte* out, size_t n) {
  const auto dropped = static_cast<size_t>(bits - fewer);
  for (size_t g = 0; g < n / kGroup; ++g) {
    codecs::store_f16(out, std::ldexp(codecs::load_f16(blocks), static_cast<int>(dropped)));
    std::memcpy(out + 2, blocks + 2 + dropped * kPlaneBytes, static_cast<size_t>(fewer) * kPlaneBytes);
    blocks += 2 + static_cast<size_t>(bits) * kPlaneBytes;
    out += 2 + static_cast<size_t>(fewer) * kPlaneBytes;
  }
}

}  // namespace bipolar

namespace codecs {

using bipolar::kGroup;

template <int kBits>
void decode_bipolar(const std::byte* blocks, float* out, size_t n) {
  for (size_t g = 0; g < n / kGroup; ++g, blocks += 2 + kBits * kGroup / 8, out += kGroup) {
    const float scale = load_f16(blocks);
    for (size_t i = 0; i < kGroup; ++i) {
      unsigned code = 0;
      for (unsigned b = 0; b < kBits; ++b) {
        code |= static_cast<unsigned>(load_u8(blocks + 2 + b * kGroup / 8 + i / 8) >> (i % 8) & 1) << b;
      }
      out[i] = scale * static_cast<float>(bipolar::value(kBits, code));
    }
  }
}

template <int kBits>
void encode_bipolar(const float* in, const float* importance, std::byte* blocks, size_t n) {
  uint8_t codes[kGroup];
  for (size_t g = 0; g < n / kGroup; ++g, blocks += 2 + kBits * kGroup / 8, in += kGroup) {
    const float scale =
        bipolar::choose_codes(kBits, in, importance == nullptr ? nullptr : importance + g * kGroup, codes);
    bipolar::pack(kBits, scale, codes, blocks);
  }
}

#define MNEME_BIPOLAR(n)                                                                 \
  template void decode_bipolar<n>(const std::byte* blocks, float* out, size_t elements); \
  template void encode_bipolar<n>(const float* in, const float* importance, std::byte* blocks, size_t elements);
MNEME_BIPOLAR(1)
MNEME_BIPOLAR(2)
MNEME_BIPOLAR(3)
MNEME_BIPOLAR(4)
MNEME_BIPOLAR(5)
MNEME_BIPOLAR(6)
MNEME_BIPOLAR(7)
MNEME_BIPOLAR(8)
#undef MNEME_BIPOLAR

}  // namespace codecs
}  // namespace mneme
