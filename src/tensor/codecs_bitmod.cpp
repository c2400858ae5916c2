#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/bitmod.h"
#include "tensor/block_fields.h"
#include "tensor/codecs.h"

namespace mneme {
namespace bitmod {
namespace {

constexpr float kLeastScale = 1e-5f, kMostScale = 1e4f;
constexpr std::array<int8_t, 4> kMagnitudes3 = {0, 1, 2, 4};
constexpr std::array<int8_t, 8> kMagnitudes4 = {0, 1, 2, 3, 4, 6, 8, 12};

/// Levels in rising order, each with its code, and the borders between them.
struct Grid {
  size_t n = 0;
  std::array<float, 16> level{};
  std::array<uint8_t, 16> code{};
  std::array<float, 15> middle{};
  float most = 0;

  Grid(int bits, Special special) {
    const auto by_code = levels(bits, special);
    n = size_t{1} << bits;
    std::array<uint8_t, 16> order{};
    for (size_t i = 0; i < n; ++i) order[i] = static_cast<uint8_t>(i);
    std::sort(order.begin(), order.begin() + static_cast<long>(n),
              [&](uint8_t a, uint8_t b) { return by_code[a] < by_code[b]; });
    for (size_t i = 0; i < n; ++i) {
      code[i] = order[i];
      level[i] = by_code[order[i]];
      if (i > 0) middle[i - 1] = (level[i - 1] + level[i]) / 2;
      most = std::max(most, std::abs(level[i]));
    }
  }

  /// Index of the nearest level for each of kGroup values, the lower one of two equally near: border < x.
  void nearest(const float* w, float inverse, uint8_t* index) const {
    float scaled[kGroup];
    int32_t above[kGroup] = {};
    for (size_t i = 0; i < kGroup; ++i) scaled[i] = w[i] * inverse;
    for (size_t b = 0; b + 1 < n; ++b) {
      for (size_t i = 0; i < kGroup; ++i) above[i] += scaled[i] > middle[b] ? 1 : 0;
    }
    for (size_t i = 0; i < kGroup; ++i) index[i] = static_cast<uint8_t>(above[i]);
  }
};

const Grid& grid(int bits, Special special) {
  static const std::array<std::array<Grid, 4>, 2> kGrids = {{
      {Grid(3, kSpecials[0]), Grid(3, kSpecials[1]), Grid(3, kSpecials[2]), Grid(3, kSpecials[3])},
      {Grid(4, kSpecials[0]), Grid(4, kSpecials[1]), Grid(4, kSpecials[2]), Grid(4, kSpecials[3])},
  }};
  return kGrids[static_cast<size_t>(bits - 3)][static_cast<size_t>(special)];
}

double group_error(const Grid& grid, float scale, const float* w, const float* importance) {
  uint8_t index[kGroup];
  grid.nearest(w, 1.0f / scale, index);
  float sum[8] = {};
  for (size_t i = 0; i < kGroup; i += 8) {
    for (size_t j = 0; j < 8; ++j) {
      const float d = w[i + j] - scale * grid.level[index[i + j]];
      sum[j] += d * d * (importance == nullptr ? 1.0f : importance[i + j]);
    }
  }
  double total = 0;
  for (float part : sum) total += static_cast<double>(part);
  return total;
}

}  // namespace

GroupHead unpack_head(uint16_t word) {
  const bool negative = (word & 0x8000u) != 0, wide = (word & 1u) != 0;
  return {f16_to_f32(static_cast<uint16_t>(word & 0x7ffeu)),
          kSpecials[static_cast<size_t>(wide ? 2 : 0) + (negative ? 1 : 0)]};
}

uint16_t pack_head(float scale, Special special) {
  const uint32_t half = f32_to_f16(codecs::limit(scale, kLeastScale, kMostScale));
  const auto choice = static_cast<uint32_t>(special);
  return static_cast<uint16_t>(((half + 1u) & 0x7ffeu) | (choice & 1u) << 15 | choice >> 1);
}

int special_level(int bits, Special special) {
  const auto choice = static_cast<size_t>(special);
  const int resolution = bits == 3 ? 3 : 10, asymmetry = bits == 3 ? 6 : 16;
  return (choice < 2 ? resolution : asymmetry) * (choice % 2 == 0 ? 1 : -1);
}

std::array<int8_t, 16> levels(int bits, Special special) {
  std::array<int8_t, 16> out{};
  const size_t half = size_t{1} << (bits - 1);
  for (size_t i = 0; i < half; ++i) {
    const int8_t magnitude = bits == 3 ? kMagnitudes3[i] : kMagnitudes4[i];
    out[i] = magnitude;
    out[half + i] = static_cast<int8_t>(-magnitude);
  }
  out[half] = static_cast<int8_t>(special_level(bits, special));
  return out;
}

GroupFit fit_group(int bits, const float* w, const float* importance, std::span<const Special> candidates) {
  const float largest = std::fabs(codecs::signed_peak(w, kGroup));
  GroupFit best{candidates.front(), kLeastScale, std::numeric_limits<double>::infinity()};
  // Steps of 1/20 below the reference rule.
  const int n_steps = importance == nullptr ? 1 : 9;
  for (Special special : candidates) {
    const Grid& levels = grid(bits, special);
    for (int step = 0; step < n_steps; ++step) {
      const float wanted = largest / levels.most * (1.0f - 0.05f * static_cast<float>(step));
      const float scale = unpack_head(pack_head(wanted, special)).scale;
      const double error = group_error(levels, scale, w, importance);
      if (error < best.error) best = {special, scale, error};
    }
  }
  return best;
}

void choose_codes(int bits, GroupHead head, const float* w, uint8_t* codes) {
  const Grid& levels = grid(bits, head.special);
  levels.nearest(w, head.scale > 0 ? 1.0f / head.scale : 0.0f, codes);
  for (size_t i = 0; i < kGroup; ++i) codes[i] = levels.code[codes[i]];
}

int bit_serial_cycles(int bits) {
  return bits <= 4 ? 2 : (bits + 1) / 2;
}

}  // namespace bitmod

namespace codecs {
namespace {

using bitmod::kGroup;

void unpack_codes3(const std::byte* block, uint8_t* codes) {
  for (size_t i = 0; i < kGroup; ++i) {
    const int magnitude = load_u8(block + 2 + i % 32) >> (2 * (i / 32)) & 3;
    const int sign = load_u8(block + 34 + i / 8) >> (i % 8) & 1;
    codes[i] = static_cast<uint8_t>(magnitude | sign << 2);
  }
}

void unpack_codes4(const std::byte* block, uint8_t* codes) {
  for (size_t i = 0; i < 64; ++i) {
    codes[i] = static_cast<uint8_t>(load_u8(block + 2 + i) & 15);
    codes[i + 64] = static_cast<uint8_t>(load_u8(block + 2 + i) >> 4);
  }
}

void pack_codes3(const uint8_t* codes, std::byte* block) {
  for (size_t j = 0; j < 32; ++j) {
    int byte = 0;
    for (size_t part = 0; part < 4; ++part) byte |= (codes[j + 32 * part] & 3) << (2 * part);
    store_u8(block + 2 + j, byte);
  }
  for (size_t j = 0; j < 16; ++j) {
    int byte = 0;
    for (size_t bit = 0; bit < 8; ++bit) byte |= (codes[8 * j + bit] >> 2) << bit;
    store_u8(block + 34 + j, byte);
  }
}

void pack_codes4(const uint8_t* codes, std::byte* block) {
  for (size_t i = 0; i < 64; ++i) store_u8(block + 2 + i, codes[i] | codes[i + 64] << 4);
}

template <int kBits>
void decode_groups(const std::byte* blocks, float* out, size_t n) {
  uint8_t codes[kGroup];
  for (size_t g = 0; g < n / kGroup; ++g, blocks += 2 + kGroup * kBits / 8, out += kGroup) {
    const bitmod::GroupHead head = bitmod::unpack_head(load_as<uint16_t>(blocks));
    const auto levels = bitmod::levels(kBits, head.special);
    kBits == 3 ? unpack_codes3(blocks, codes) : unpack_codes4(blocks, codes);
    for (size_t i = 0; i < kGroup; ++i) out[i] = head.scale * static_cast<float>(levels[codes[i]]);
  }
}

template <int kBits>
void encode_groups(const float* in, const float* importance, std::byte* blocks, size_t n) {
  uint8_t codes[kGroup];
  for (size_t g = 0; g < n / kGroup; ++g, blocks += 2 + kGroup * kBits / 8, in += kGroup) {
    const float* weights = importance == nullptr ? nullptr : importance + g * kGroup;
    const bitmod::GroupFit fit = bitmod::fit_group(kBits, in, weights);
    const uint16_t word = bitmod::pack_head(fit.scale, fit.special);
    store_as(blocks, word);
    bitmod::choose_codes(kBits, bitmod::unpack_head(word), in, codes);
    kBits == 3 ? pack_codes3(codes, blocks) : pack_codes4(codes, blocks);
  }
}

}  // namespace

void decode_bitmod3(const std::byte* blocks, float* out, size_t n) {
  decode_groups<3>(blocks, out, n);
}
void decode_bitmod4(const std::byte* blocks, float* out, size_t n) {
  decode_groups<4>(blocks, out, n);
}
void encode_bitmod3(const float* in, const float* importance, std::byte* blocks, size_t n) {
  encode_groups<3>(in, importance, blocks, n);
}
void encode_bitmod4(const float* in, const float* importance, std::byte* blocks, size_t n) {
  encode_groups<4>(in, importance, blocks, n);
}

}  // namespace codecs
}  // namespace mneme
