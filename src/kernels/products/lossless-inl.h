#pragma once

#include "kernels/prefetch.h"
#include "kernels/products/micro-inl.h"
#include "tensor/dfloat_tile-inl.h"

// Tiles of the lossless formats (tensor/dfloat.h) as bfloat16 words: straight into the product of one token, or into
// memory for several. Compiled once a target.
namespace mneme::kernels::products::MNEME_TARGET {

/// Tiles of the same columns in kStripes stripes one under another. Words come 64 at a time, from the first of a tile
/// on; what the next tiles are decoded from is asked for meanwhile.
template <size_t kStripes>
class Df12Tiles {
 public:
  Df12Tiles(const std::byte* stored, const dfloat::TileGrid& grid, uint64_t stripe, uint64_t column_tile) {
    for (size_t s = 0; s < kStripes; ++s) {
      tiles_[s] = dfloat::MNEME_TARGET::df12_tile(stored, grid, (stripe + s) * grid.column_tiles() + column_tile);
      place_[s] = place_of(s);
    }
    const bool last = column_tile + 1 == grid.column_tiles();
    ahead_ = (words() + (last ? (kStripes - 1) * kStripeRows * grid.columns : 0)) / 2 * 3;
    exponents_ = Isa::df12_exponents(tiles_[0].base);
  }

  size_t words() const { return tiles_[0].words; }

  /// Words [i, i + 64) of stripe s.
  MNEME_INLINE void decode(size_t s, size_t i, Isa::Bytes (&out)[2]) {
    prefetch(tiles_[s].nibbles + ahead_ + i / 2 * 3, 96);
    Isa::df12_words(exponents_, tiles_[s].nibbles + i / 2, tiles_[s].sm + i, out);
    if (place_[s] < i + 64) [[unlikely]] {
      patch(s, i + 64, out);
    }
  }

 private:
  size_t place_of(size_t s) const {
    return escape_[s] < tiles_[s].n_escapes ? size_t{tiles_[s].place(escape_[s])} : words();
  }
  /// Puts the exponents in that have no nibble, of words before `end`.
  void patch(size_t s, size_t end, Isa::Bytes (&out)[2]) {
    uint16_t words[64];
    std::memcpy(words, out, sizeof words);
    for (; place_[s] < end; place_[s] = place_of(s)) {
      uint16_t& word = words[place_[s] % 64];
      word = dfloat::with_exponent(word, tiles_[s].exponent(escape_[s]++));
    }
    std::memcpy(out, words, sizeof words);
  }

  dfloat::MNEME_TARGET::Df12Tile tiles_[kStripes];
  size_t escape_[kStripes] = {};  ///< The next one of each tile,
  size_t place_[kStripes];        ///< and the word that it is for.
  size_t ahead_;                  ///< Bytes from a tile to the one that is read after it.
  decltype(Isa::df12_exponents(0)) exponents_;
};

/// The same of DF11, whose exponents are all decoded first.
template <size_t kStripes>
class Df11Tiles {
 public:
  Df11Tiles(const std::byte* stored, const dfloat::TileGrid& grid, uint64_t stripe, uint64_t column_tile)
      : n_(grid.words(column_tile)) {
    const bool last = column_tile + 1 == grid.column_tiles();
    for (size_t s = 0; s < kStripes; ++s) {
      const uint64_t tile = (stripe + s) * grid.column_tiles() + column_tile;
      const uint64_t next = tile + 1 + (last ? (kStripes - 1) * grid.column_tiles() : 0);
      if (next < grid.tiles()) {
        const std::byte* const coming = dfloat::MNEME_TARGET::df11_tile(stored, next);
        prefetch_bytes(coming, static_cast<size_t>(dfloat::MNEME_TARGET::df11_tile(stored, next + 1) - coming));
      }
      sm_[s] = dfloat::MNEME_TARGET::df11_exponents(stored, grid, tile, exponents_[s]);
    }
  }

  size_t words() const { return n_; }

  MNEME_INLINE void decode(size_t s, size_t i, Isa::Bytes (&out)[2]) const {
    Isa::merge_words(exponents_[s] + i, sm_[s] + i, out);
  }

 private:
  size_t n_;
  const uint8_t* sm_[kStripes];
  uint8_t exponents_[kStripes][dfloat::kTileWords];
};

/// The product of one token with the tiles, to the bits of bf16_micro(): sums[stripe][row] += tile product.
template <size_t kStripes, class Tiles>
MNEME_INLINE void dot_tiles(Tiles& tiles, const uint16_t* x, float* sums) {
  Isa::Floats acc[kStripes];
  MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) acc[s] = Isa::zero_floats();
  for (size_t i = 0; i < tiles.words(); i += 64) {
    MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) {
      Isa::Bytes pairs[2];
      tiles.decode(s, i, pairs);
      acc[s] = Isa::dot_bf16(acc[s], pairs[0], x + i / kStripeRows);
      acc[s] = Isa::dot_bf16(acc[s], pairs[1], x + i / kStripeRows + 2);
    }
  }
  MNEME_UNROLL for (size_t s = 0; s < kStripes; ++s) {
    float* sum = sums + s * kStripeRows;
    Isa::store_floats(sum, Isa::add(Isa::load_floats(sum), acc[s]));
  }
}

/// All words of stripe s.
template <class Tiles>
MNEME_INLINE void store_tile(Tiles& tiles, size_t s, uint8_t* out) {
  for (size_t i = 0; i < tiles.words(); i += 64) {
    Isa::Bytes words[2];
    tiles.decode(s, i, words);
    Isa::store_bytes(out + 2 * i, words[0]);
    Isa::store_bytes(out + 2 * i + kVectorBytes, words[1]);
  }
}

}  // namespace mneme::kernels::products::MNEME_TARGET
