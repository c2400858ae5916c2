#pragma once

#include <algorithm>
#include <cstring>

#include "tensor/dfloat.h"

// Tiles of DF11 and DF12 back to bfloat16 words. The loops over words are plain so that the compiler vectorises them
// for each target. Compiled once a target: the including file defines MNEME_TARGET and the target's attributes.
namespace mneme::dfloat::MNEME_TARGET {

/// Code bits of one stream on their way out. `at` may run at most kTileWords / kStreams * kMaxCodeBits bits and 8 bytes
/// on.
struct BitCursor {
  const uint8_t* bytes;
  size_t bit = 0;

  /// The next bits, at least 57 of them, from the top.
  uint64_t window() const {
    uint64_t word = 0;
    std::memcpy(&word, bytes + (bit >> 3), sizeof word);
    return __builtin_bswap64(word) << (bit & 7);
  }
};

/// Writes the exponents that kLookUps windows after one another begin with, and up to 8 bytes from the start of the
/// last of them; returns their number.
template <int kLookUps>
inline size_t decode_some(const DecodeTable& table, BitCursor& cursor, uint8_t* out) {
  static_assert(kLookUps * kMaxCodeBits <= 57 && kMostCodes + 2 <= 8);
  uint64_t window = cursor.window(), sum = 0;
  for (int i = 0; i < kLookUps; ++i) {
    const uint64_t entry = table[window >> (64 - kMaxCodeBits)], codes = entry >> kEntryCodes;
    std::memcpy(out + (sum >> kEntryCount & 0xff), &codes, sizeof codes);
    sum += entry;  // bits and counts in their own bytes
    window <<= entry & 63;
  }
  cursor.bit += sum & 0xff;
  return sum >> kEntryCount & 0xff;
}

/// Exponents of a tile of `words` words from its four streams.
inline void decode_exponents(const DecodeTable& table, const uint8_t* const (&streams)[kStreams], size_t words,
                             uint8_t* out) {
  constexpr int kLookUps = 4;
  constexpr size_t kLeast = (kLookUps - 1) * kMostCodes + 8;  // exponents left, so that all writes stay in the stream's
  BitCursor cursor[kStreams];
  uint8_t *to[kStreams], *end[kStreams];
  for (size_t q = 0; q < kStreams; ++q) {
    cursor[q].bytes = streams[q];
    to[q] = out + q * (words / kStreams);
    end[q] = to[q] + words / kStreams;
  }
  const auto left = [&](size_t q) { return static_cast<size_t>(end[q] - to[q]); };
  while (left(0) >= kLeast && left(1) >= kLeast && left(2) >= kLeast && left(3) >= kLeast) {
    for (size_t q = 0; q < kStreams; ++q) to[q] += decode_some<kLookUps>(table, cursor[q], to[q]);
  }
  for (bool more = true; more;) {
    more = false;
    for (size_t q = 0; q < kStreams; ++q) {
      if (left(q) < 8) continue;
      to[q] += decode_some<1>(table, cursor[q], to[q]);
      more = true;
    }
  }
  for (size_t q = 0; q < kStreams; ++q) {
    while (to[q] < end[q]) {
      uint8_t last[8];
      const size_t n = std::min(decode_some<1>(table, cursor[q], last), left(q));
      std::memcpy(to[q], last, n);
      to[q] += n;
    }
  }
}

/// Where tile `tile` of the DF11 stream at `stored` begins; behind the last tile: its end.
inline const std::byte* df11_tile(const std::byte* stored, uint64_t tile) {
  uint32_t place = 0;
  std::memcpy(&place, stored + kDf11Directory + 4 * tile, sizeof place);
  return stored + size_t{8} * place;
}

/// Decodes the exponents of tile `tile` of the DF11 stream at `stored`, a valid one; returns its signs and mantissas.
inline const uint8_t* df11_exponents(const std::byte* stored, const TileGrid& grid, uint64_t tile, uint8_t* exponents) {
  uint64_t total = 0;
  std::memcpy(&total, stored, sizeof total);
  const auto* bytes = reinterpret_cast<const uint8_t*>(stored);
  const auto* at = reinterpret_cast<const uint8_t*>(df11_tile(stored, tile));
  const size_t n = grid.words(tile);
  uint16_t sizes[kStreams - 1];
  std::memcpy(sizes, at, sizeof sizes);
  const uint8_t* sm = at + kDf11TileHead;
  const uint8_t* streams[kStreams] = {sm + n};
  for (size_t q = 1; q < kStreams; ++q) streams[q] = streams[q - 1] + sizes[q - 1];
  // Near the end of the matrix a stream is decoded from a copy, since windows reach beyond it.
  constexpr size_t kMostBytes = kTileWords / kStreams * kMaxCodeBits / 8 + 8;
  uint8_t copies[kStreams][kMostBytes];
  for (size_t q = 0; q < kStreams; ++q) {
    const auto offset = static_cast<size_t>(streams[q] - bytes);
    if (offset + kMostBytes <= total) continue;
    const size_t rest = offset < total ? static_cast<size_t>(total - offset) : 0;
    std::memcpy(copies[q], streams[q], rest);
    std::memset(copies[q] + rest, 0, kMostBytes - rest);
    streams[q] = copies[q];
  }
  decode_exponents(table_of(stored + kDf11Lengths), streams, n, exponents);
  return sm;
}

/// words[i] = sign, exponent and mantissa put together.
inline void merge_words(const uint8_t* exponents, const uint8_t* sm, size_t n, uint16_t* words) {
  for (size_t i = 0; i < n; ++i) {
    const auto word = static_cast<uint32_t>((sm[i] & 0x80) << 8 | (sm[i] & 0x7f) | exponents[i] << 7);
    words[i] = static_cast<uint16_t>(word);
  }
}

/// The words of a tile of DF11.
inline void decode_df11(const std::byte* stored, const TileGrid& grid, uint64_t tile, uint16_t* words) {
  uint8_t exponents[kTileWords];
  const uint8_t* sm = df11_exponents(stored, grid, tile, exponents);
  merge_words(exponents, sm, grid.words(tile), words);
}

/// Where a tile of DF12 lies.
struct Df12Tile {
  const uint8_t* nibbles;  ///< 32 bytes for 64 words,
  const uint8_t* sm;       ///< behind all of them 64 bytes.
  size_t words;
  unsigned base;           ///< Exponent of nibble 0.
  const uint8_t* escapes;  ///< kDf12Escape bytes each, by their places.
  size_t n_escapes;

  /// Word of escape e, and its exponent.
  uint16_t place(size_t e) const {
    uint16_t out = 0;
    std::memcpy(&out, escapes + kDf12Escape * e, sizeof out);
    return out;
  }
  unsigned exponent(size_t e) const { return escapes[kDf12Escape * e + 2]; }
};

/// Tile `tile` of the DF12 stream at `stored`, a valid one.
inline Df12Tile df12_tile(const std::byte* stored, const TileGrid& grid, uint64_t tile) {
  const uint64_t planes = kDf12Directory + 4 * (grid.tiles() + 1);
  const auto* bytes = reinterpret_cast<const uint8_t*>(stored);
  uint32_t escapes[2];
  std::memcpy(escapes, bytes + kDf12Directory + 4 * tile, sizeof escapes);
  const size_t n = grid.words(tile);
  const uint8_t* nibbles = bytes + planes + grid.first_word(tile) / 2 * 3;
  const uint8_t* list = bytes + planes + grid.stripes() * kTileRows * grid.columns / 2 * 3;
  return {nibbles,
          nibbles + n / 2,
          n,
          bytes[kDf12Base],
          list + kDf12Escape * size_t{escapes[0]},
          size_t{escapes[1] - escapes[0]}};
}

/// Puts the exponents in that have no nibble.
inline void patch_escapes(const Df12Tile& tile, uint16_t* words) {
  for (size_t e = 0; e < tile.n_escapes; ++e) {
    uint16_t& word = words[tile.place(e) % kTileWords];
    word = with_exponent(word, tile.exponent(e));
  }
}

/// 32 words from their nibbles, in the low half of bytes shifted right by `shift`, and their sm.
inline void df12_words(const uint8_t* nibbles, unsigned shift, const uint8_t* sm, unsigned base, uint16_t* words) {
  for (size_t j = 0; j < 32; ++j) {
    const unsigned exponent = base + ((unsigned{nibbles[j]} >> shift) & 15u);
    words[j] = static_cast<uint16_t>((sm[j] & 0x80u) << 8 | (sm[j] & 0x7fu) | exponent << 7);
  }
}

/// The words of a tile of DF12.
inline void decode_df12(const Df12Tile& tile, uint16_t* words) {
  for (size_t i = 0; i < tile.words; i += 64) {
    for (size_t half = 0; half < 2; ++half) {
      const size_t first = i + 32 * half;
      df12_words(tile.nibbles + i / 2, 4 * static_cast<unsigned>(half), tile.sm + first, tile.base, words + first);
    }
  }
  patch_escapes(tile, words);
}

}  // namespace mneme::dfloat::MNEME_TARGET
