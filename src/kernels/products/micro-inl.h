#pragma once

#include "kernels/products/planes-inl.h"
#include "kernels/products/product_table.h"
#include "kernels/products/scales-inl.h"

// The innermost products: one tile of weights with a few tokens, added to running sums. The order of floating-point
// operations that lead to one sum does not depend on the number of tokens or stripes, so any grouping gives the same
// bits: within a tile the columns follow one another from zero, then the tile's result is added. Compiled once a
// target.
namespace mneme::kernels::products::MNEME_TARGET {

/// 8-bit activations of one tile, first token of the group.
struct Int8Inputs {
  const int8_t* levels;
  const float* anchor;
  const int32_t* start;
  const float* sum;
};

/// How far ahead of its use a weight that is read once is asked for.
constexpr size_t kPrefetchBytes = 4096;

/// Asks for the cache lines of [p, p + bytes). Any address will do, also one that is not mapped.
MNEME_INLINE void prefetch(const uint8_t* p, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i);
}

/// Weights of one stripe and tile in the 8-bit currency.
struct Int8Weights {
  const uint8_t* levels;
  const float* scale;
  const float* minimum;
};

/// sums[token][stripe][row] += tile product; kWide: levels go beyond 63.
template <size_t kGroup, bool kMinimum, bool kWide, size_t kTokens, size_t kStripes>
void int8_micro(const Int8Weights* weights, const Int8Inputs& x, size_t n_blocks, float* sums) {
  constexpr size_t kGroups = kTileColumns / kGroup, kQuads = kGroup / 4;
  Isa::Floats acc[kTokens][kStripes];
  MNEME_UNROLL for (size_t t = 0; t < kTokens; ++t) {
    MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) acc[t][s] = Isa::zero_floats();
  }
  const size_t n_groups = n_blocks * kBlockColumns / kGroup;
  for (size_t g = 0; g < n_groups; ++g) {
    Isa::Ints dot[kTokens][kStripes];
    MNEME_UNROLL for (size_t t = 0; t < kTokens; ++t) {
      MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) dot[t][s] = Isa::set_ints(x.start[t * kGroups + g]);
    }
    MNEME_UNROLL for (size_t q = 0; q < kQuads; ++q) {
      Isa::Bytes levels[kStripes];
      MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) {
        levels[s] = Isa::load_bytes(weights[s].levels + (g * kQuads + q) * kVectorBytes);
      }
      MNEME_UNROLL for (size_t t = 0; t < kTokens; ++t) {
        const int8_t* quad = x.levels + t * kTileColumns + g * kGroup + 4 * q;
        MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) dot[t][s] = Isa::dot<kWide>(dot[t][s], levels[s], quad);
      }
    }
    MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) {
      const Isa::Floats scale = Isa::load_floats(weights[s].scale + g * kStripeRows);
      MNEME_UNROLL for (size_t t = 0; t < kTokens; ++t) {
        const Isa::Floats anchor = Isa::set_floats(x.anchor[t * kTileBlocks + g * kGroup / kBlockColumns]);
        acc[t][s] = Isa::multiply_add(Isa::subtract(Isa::as_floats(dot[t][s]), anchor), scale, acc[t][s]);
      }
      if constexpr (kMinimum) {
        const Isa::Floats minimum = Isa::load_floats(weights[s].minimum + g * kStripeRows);
        MNEME_UNROLL for (size_t t = 0; t < kTokens; ++t) {
          acc[t][s] = Isa::subtract_product(minimum, Isa::set_floats(x.sum[t * kGroups + g]), acc[t][s]);
        }
      }
    }
  }
  MNEME_UNROLL for (size_t t = 0; t < kTokens; ++t) {
    MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) {
      float* sum = sums + (t * kStripes + s) * kStripeRows;
      Isa::store_floats(sum, Isa::add(Isa::load_floats(sum), acc[t][s]));
    }
  }
}

/// The same for one token and packed weights, whose levels go straight from the code planes into the products. Bytes
/// kPrefetchBytes further on are asked for already, because the processor's own prefetching stops at the end of a page.
template <class Format, bool kWide, size_t kStripes>
void int8_decode(const uint8_t* packed, const PackedTile* tiles, const Int8Inputs& x, size_t n_blocks, float* sums) {
  constexpr size_t kPerBlock = kBlockColumns / Format::kGroup, kQuads = Format::kGroup / 4;
  constexpr size_t kPlaneBytes = plane_vectors(Format::kPlanes) * kVectorBytes;
  constexpr bool kTrits = Format::kPlanes == Planes::kTrits;
  const size_t header = n_blocks * kBlockColumns / Format::kBlock * header_bytes<Format>() * kStripeRows;
  TileScales scales[kStripes];
  Isa::Floats acc[kStripes];
  Isa::Bytes rest[kStripes];  // of the digits of kTrits
  MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) {
    if constexpr (kTrits) prefetch(packed + tiles[s].planes + kPrefetchBytes, kPlaneBytes);
    prefetch(packed + tiles[s].header + kPrefetchBytes, header);
    tile_scales(Format(), packed + tiles[s].header, n_blocks * kBlockColumns / Format::kBlock, scales[s]);
    acc[s] = Isa::zero_floats();
  }
  const auto add_block = [&](size_t b) __attribute__((always_inline)) {
    Isa::Bytes levels[kStripes][kBlockQuads];
    MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) {
      const uint8_t* planes = packed + tiles[s].planes + b * tiles[s].block_stride;
      if constexpr (kTrits) {
        MNEME_UNROLL for (size_t q = 0; q < kBlockQuads; ++q) {
          levels[s][q] = next_trits(packed + tiles[s].planes, b * kBlockQuads + q, rest[s]);
        }
      } else {
        prefetch(planes + kPrefetchBytes, kPlaneBytes);
        block_levels<Format>(planes, scales[s].special[special_row<Format>(b)], levels[s]);
      }
    }
    MNEME_UNROLL for (size_t half = 0; half < kPerBlock; ++half) {
      const size_t g = b * kPerBlock + half;
      Isa::Ints dot[kStripes];
      MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) dot[s] = Isa::set_ints(x.start[g]);
      MNEME_UNROLL for (size_t q = 0; q < kQuads; ++q) {
        const int8_t* quad = x.levels + g * Format::kGroup + 4 * q;
        MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) {
          dot[s] = Isa::dot<kWide>(dot[s], levels[s][half * kQuads + q], quad);
        }
      }
      MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) {
        const Isa::Floats product = Isa::subtract(Isa::as_floats(dot[s]), Isa::set_floats(x.anchor[b]));
        acc[s] = Isa::multiply_add(product, Isa::load_floats(scales[s].scale[g]), acc[s]);
        if constexpr (Format::kMinimum) {
          acc[s] = Isa::subtract_product(Isa::load_floats(scales[s].minimum[g]), Isa::set_floats(x.sum[g]), acc[s]);
        }
      }
    }
  };
  if constexpr (kTrits) {  // always whole tiles; unrolled, so that digits are known where they are taken
    MNEME_UNROLL for (size_t b = 0; b < kTileBlocks; ++b) add_block(b);
  } else {
    for (size_t b = 0; b < n_blocks; ++b) add_block(b);
  }
  MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) {
    float* sum = sums + s * kStripeRows;
    Isa::store_floats(sum, Isa::add(Isa::load_floats(sum), acc[s]));
  }
}

/// Weights [column][row] in f32 (or f16 where kHalf), activations [token][column] with stride n.
template <bool kHalf, size_t kTokens, size_t kStripes>
void f32_micro(const uint8_t* const* weights, const float* x, size_t n, float* sums) {
  constexpr size_t kColumnBytes = kStripeRows * (kHalf ? 2 : 4);
  Isa::Floats acc[kTokens][kStripes];
  MNEME_UNROLL for (size_t t = 0; t < kTokens; ++t) {
    MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) acc[t][s] = Isa::zero_floats();
  }
  for (size_t k = 0; k < n; ++k) {
    Isa::Floats w[kStripes];
    MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) {
      const uint8_t* column = weights[s] + k * kColumnBytes;
      if constexpr (kHalf) w[s] = Isa::load_halves(column);
      if constexpr (!kHalf) w[s] = Isa::load_floats(reinterpret_cast<const float*>(column));
    }
    MNEME_UNROLL for (size_t t = 0; t < kTokens; ++t) {
      const Isa::Floats value = Isa::set_floats(x[t * n + k]);
      MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) acc[t][s] = Isa::multiply_add(w[s], value, acc[t][s]);
    }
  }
  MNEME_UNROLL for (size_t t = 0; t < kTokens; ++t) {
    MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) {
      float* sum = sums + (t * kStripes + s) * kStripeRows;
      Isa::store_floats(sum, Isa::add(Isa::load_floats(sum), acc[t][s]));
    }
  }
}

/// Weights [pair of columns][row][2] and activations [token][column] in bfloat16; n is even.
template <size_t kTokens, size_t kStripes>
void bf16_micro(const uint8_t* const* weights, const uint16_t* x, size_t n, float* sums) {
  Isa::Floats acc[kTokens][kStripes];
  MNEME_UNROLL for (size_t t = 0; t < kTokens; ++t) {
    MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) acc[t][s] = Isa::zero_floats();
  }
  for (size_t k = 0; k < n; k += 2) {
    MNEME_UNROLL for (size_t t = 0; t < kTokens; ++t) {
      MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) {
        acc[t][s] = Isa::dot_bf16(acc[t][s], weights[s] + k / 2 * kVectorBytes, x + t * n + k);
      }
    }
    if constexpr (kTokens == 1) {
      MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s)
          prefetch(weights[s] + k / 2 * kVectorBytes + kPrefetchBytes, 1);
    }
  }
  MNEME_UNROLL for (size_t t = 0; t < kTokens; ++t) {
    MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) {
      float* sum = sums + (t * kStripes + s) * kStripeRows;
      Isa::store_floats(sum, Isa::add(Isa::load_floats(sum), acc[t][s]));
    }
  }
}

}  // namespace mneme::kernels::products::MNEME_TARGET
