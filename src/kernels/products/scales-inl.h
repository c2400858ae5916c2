#pragma once

#include <bit>
#include <cstring>

#include "kernels/products/formats.h"

// Scales and minima of a tile from its headers. A header is the same in packed and gathered form: fields in the order
// of Format::kHeader, each for 16 rows side by side. Compiled once a target.
namespace mneme::kernels::products::MNEME_TARGET {

using Rows = float[kStripeRows];

/// 16 little-endian halves to f32.
inline void load_halves(const uint8_t* halves, Rows& out) {
  Isa::store_floats(out, Isa::load_halves(halves));
}

/// The same with the sign changed.
inline void load_negated_halves(const uint8_t* halves, Rows& out) {
  Isa::store_floats(out, Isa::subtract(Isa::zero_floats(), Isa::load_halves(halves)));
}

/// scale = d * level for 16 rows; level(r) is a small integer.
template <class Level>
inline void scale_rows(const Rows& d, Rows& out, Level level) {
  for (size_t r = 0; r < kStripeRows; ++r) out[r] = d[r] * static_cast<float>(level(r));
}

/// Row of TileScales::special that belongs to block b of 32 columns.
template <class Format>
constexpr size_t special_row(size_t b) {
  return Format::kSpecialCode >= 0 ? b * kBlockColumns / Format::kBlock : 0;
}

/// Types with one f16 scale a block.
template <class Format>
inline void one_scale(const uint8_t* header, size_t n_blocks, TileScales& tile) {
  constexpr size_t kGroups = Format::kBlock / Format::kGroup;
  for (size_t b = 0; b < n_blocks; ++b) {
    Rows* scales = tile.scale + b * kGroups;
    load_halves(header + 2 * kStripeRows * b, scales[0]);
    for (size_t g = 1; g < kGroups; ++g) std::memcpy(scales[g], scales[0], sizeof(Rows));
  }
}

/// Types with f16 scale and added minimum a block of 32.
inline void scale_and_minimum(const uint8_t* header, size_t n_blocks, TileScales& tile) {
  for (size_t b = 0; b < n_blocks; ++b) {
    load_halves(header + 64 * b, tile.scale[b]);
    load_negated_halves(header + 64 * b + 32, tile.minimum[b]);
  }
}

inline void tile_scales(Q4_0, const uint8_t* header, size_t n, TileScales& tile) {
  one_scale<Q4_0>(header, n, tile);
}
inline void tile_scales(Q5_0, const uint8_t* header, size_t n, TileScales& tile) {
  one_scale<Q5_0>(header, n, tile);
}
inline void tile_scales(Q8_0, const uint8_t* header, size_t n, TileScales& tile) {
  one_scale<Q8_0>(header, n, tile);
}
inline void tile_scales(Iq4Nl, const uint8_t* header, size_t n, TileScales& tile) {
  one_scale<Iq4Nl>(header, n, tile);
}
inline void tile_scales(Q4_1, const uint8_t* header, size_t n, TileScales& tile) {
  scale_and_minimum(header, n, tile);
}
inline void tile_scales(Q5_1, const uint8_t* header, size_t n, TileScales& tile) {
  scale_and_minimum(header, n, tile);
}

inline void tile_scales(Mxfp4, const uint8_t* header, size_t n, TileScales& tile) {
  for (size_t b = 0; b < n; ++b) {
    for (size_t r = 0; r < kStripeRows; ++r) {
      // 2^(e - 128); the two smallest are subnormal.
      const uint32_t e = header[16 * b + r];
      tile.scale[b][r] = std::bit_cast<float>(e < 2 ? 0x00200000u << e : (e - 1) << 23);
    }
  }
}

/// Unsigned E4M3 scales; the levels are doubled.
inline void tile_scales(Nvfp4, const uint8_t* header, size_t n, TileScales& tile) {
  const Isa::Floats factor = Isa::set_floats(256 / 2);
  for (size_t g = 0; g < n * (Nvfp4::kBlock / Nvfp4::kGroup); ++g) {
    Isa::store_floats(tile.scale[g], Isa::multiply(factor, Isa::load_small_ue4m3(header + kStripeRows * g)));
  }
}

/// Word of a group: sign of the special level, scale, choice of its magnitude (tensor/bitmod.h).
template <class Format>
inline void bitmod_scales(const uint8_t* header, size_t n, TileScales& tile) {
  constexpr size_t kGroups = Format::kBlock / kBlockColumns;
  for (size_t b = 0; b < n; ++b) {
    uint16_t words[kStripeRows];
    std::memcpy(words, header + sizeof words * b, sizeof words);
    for (size_t r = 0; r < kStripeRows; ++r) {
      const int magnitude = Format::kResolution + (words[r] & 1) * (Format::kAsymmetry - Format::kResolution);
      const int level = Format::kZero + magnitude * (1 - 2 * (words[r] >> 15));
      tile.special[b][r] = static_cast<uint32_t>(level) * 0x01010101u;
      words[r] &= 0x7ffe;
    }
    load_halves(reinterpret_cast<const uint8_t*>(words), tile.scale[b * kGroups]);
    for (size_t g = 1; g < kGroups; ++g) {
      std::memcpy(tile.scale[b * kGroups + g], tile.scale[b * kGroups], sizeof(Rows));
    }
  }
}

inline void tile_scales(BitMod4, const uint8_t* header, size_t n, TileScales& tile) {
  bitmod_scales<BitMod4>(header, n, tile);
}
inline void tile_scales(BitMod3, const uint8_t* header, size_t n, TileScales& tile) {
  bitmod_scales<BitMod3>(header, n, tile);
}

inline void tile_scales(Signs, const uint8_t*, size_t n, TileScales& tile) {
  for (size_t b = 0; b < n; ++b) Isa::store_floats(tile.scale[b], Isa::set_floats(1.0f));
}

template <int kBits>
inline void tile_scales(Bipolar<kBits>, const uint8_t* header, size_t n, TileScales& tile) {
  constexpr size_t kGroups = Bipolar<kBits>::kBlock / kBlockColumns;
  for (size_t b = 0; b < n; ++b) {
    Rows& scale = tile.scale[b * kGroups];
    load_halves(header + 2 * kStripeRows * b, scale);
    if constexpr (kBits == 8) {
      load_negated_halves(header + 2 * kStripeRows * b, tile.minimum[b * kGroups]);
      for (size_t r = 0; r < kStripeRows; ++r) scale[r] *= 2;
    }
    for (size_t g = 1; g < kGroups; ++g) {
      std::memcpy(tile.scale[b * kGroups + g], scale, sizeof(Rows));
      if constexpr (kBits == 8) std::memcpy(tile.minimum[b * kGroups + g], tile.minimum[b * kGroups], sizeof(Rows));
    }
  }
}

inline void tile_scales(Tq1_0, const uint8_t* header, size_t n, TileScales& tile) {
  one_scale<Tq1_0>(header, n, tile);
  for (Rows& scale : tile.scale) {
    for (float& row : scale) row *= 1.0f / 64;
  }
}
inline void tile_scales(Tq2_0, const uint8_t* header, size_t n, TileScales& tile) {
  one_scale<Tq2_0>(header, n, tile);
}
inline void tile_scales(Q2_0, const uint8_t* header, size_t n, TileScales& tile) {
  one_scale<Q2_0>(header, n, tile);
}
inline void tile_scales(Q1_0, const uint8_t* header, size_t n, TileScales& tile) {
  one_scale<Q1_0>(header, n, tile);
}

inline void tile_scales(Q2_K, const uint8_t* header, size_t, TileScales& tile) {
  Rows d, minimum;
  load_halves(header + 256, d);
  load_halves(header + 288, minimum);
  for (size_t g = 0; g < 16; ++g) {
    const uint8_t* field = header + 16 * g;
    scale_rows(d, tile.scale[g], [field](size_t r) { return field[r] & 15; });
    scale_rows(minimum, tile.minimum[g], [field](size_t r) { return field[r] >> 4; });
  }
}

inline void tile_scales(Q3_K, const uint8_t* header, size_t, TileScales& tile) {
  Rows d;
  load_halves(header + 192, d);
  for (size_t g = 0; g < 16; ++g) {
    // Four low bits from byte g % 8 (low nibble first), two high bits from byte 8 + g % 4.
    const uint8_t* low = header + 16 * (g % 8);
    const uint8_t* high = header + 16 * (8 + g % 4);
    const size_t low_shift = g < 8 ? 0 : 4, high_shift = 2 * (g / 4);
    scale_rows(d, tile.scale[g],
               [=](size_t r) { return (((low[r] >> low_shift) & 15) | (((high[r] >> high_shift) & 3) << 4)) - 32; });
  }
}

/// The 6-bit scales and minima of Q4_K and Q5_K: two halves, then 12 bytes.
inline void six_bit_scales(const uint8_t* header, TileScales& tile) {
  Rows d, minimum;
  load_halves(header, d);
  load_halves(header + 32, minimum);
  const uint8_t* s = header + 64;
  for (size_t k = 0; k < 4; ++k) {
    const uint8_t *a = s + 16 * k, *b = s + 16 * (k + 4), *c = s + 16 * (k + 8);
    scale_rows(d, tile.scale[k], [=](size_t r) { return a[r] & 63; });
    scale_rows(minimum, tile.minimum[k], [=](size_t r) { return b[r] & 63; });
    scale_rows(d, tile.scale[k + 4], [=](size_t r) { return (c[r] & 15) | ((a[r] >> 6) << 4); });
    scale_rows(minimum, tile.minimum[k + 4], [=](size_t r) { return (c[r] >> 4) | ((b[r] >> 6) << 4); });
  }
}

inline void tile_scales(Q4_K, const uint8_t* header, size_t, TileScales& tile) {
  six_bit_scales(header, tile);
}
inline void tile_scales(Q5_K, const uint8_t* header, size_t, TileScales& tile) {
  six_bit_scales(header, tile);
}

inline void tile_scales(Q6_K, const uint8_t* header, size_t, TileScales& tile) {
  Rows d;
  load_halves(header + 256, d);
  for (size_t g = 0; g < 16; ++g) {
    const uint8_t* field = header + 16 * g;
    scale_rows(d, tile.scale[g], [field](size_t r) { return static_cast<int8_t>(field[r]); });
  }
}

inline void tile_scales(Iq4Xs, const uint8_t* header, size_t, TileScales& tile) {
  Rows d;
  load_halves(header, d);
  for (size_t b = 0; b < 8; ++b) {
    // The 16-bit field of a row holds two high bits a block.
    const uint8_t* high = header + 32 + b / 4;
    const uint8_t* low = header + 64 + 16 * (b / 2);
    const size_t high_shift = 2 * (b % 4), low_shift = 4 * (b % 2);
    scale_rows(d, tile.scale[b], [=](size_t r) {
      return (((low[r] >> low_shift) & 15) | (((high[2 * r] >> high_shift) & 3) << 4)) - 32;
    });
  }
}

}  // namespace mneme::kernels::products::MNEME_TARGET
