#pragma once

#include <bit>
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

/// Exponents of a tile of `words` words from its four streams.
inline void decode_exponents(const DecodeTable& table, const uint8_t* const (&streams)[kStreams], size_t words,
                             uint8_t* out) {
  constexpr unsigned kTop = 64 - kMaxCodeBits;
  constexpr size_t kRound = 16;  // four look-ups give at most so many exponents and use at most 48 bits
  BitCursor cursor[kStreams];
  size_t left[kStreams];
  for (size_t q = 0; q < kStreams; ++q) {
    cursor[q].bytes = streams[q];
    left[q] = words / kStreams;
  }
  const auto place = [&](size_t q) { return out + (q + 1) * (words / kStreams) - left[q]; };
  while (left[0] >= kRound && left[1] >= kRound && left[2] >= kRound && left[3] >= kRound) {
    for (size_t q = 0; q < kStreams; ++q) {
      uint64_t window = cursor[q].window();
      uint8_t* to = place(q);
      size_t used = 0, n = 0;
      for (int i = 0; i < 4; ++i) {
        const uint64_t entry = table[window >> kTop];
        const auto symbols = static_cast<uint32_t>(entry);
        std::memcpy(to + n, &symbols, sizeof symbols);
        n += (entry >> 32) & 0xff;
        const uint64_t bits = (entry >> 40) & 0xff;
        window <<= bits;
        used += bits;
      }
      left[q] -= n;
      cursor[q].bit += used;
    }
  }
  for (size_t q = 0; q < kStreams; ++q) {
    for (; left[q] > 0; --left[q]) {
      const uint64_t entry = table[cursor[q].window() >> kTop];
      *place(q) = static_cast<uint8_t>(entry);
      cursor[q].bit += (entry >> 48) & 0xff;
    }
  }
}

/// words[i] = sign, exponent and mantissa put together.
inline void merge_words(const uint8_t* exponents, const uint8_t* sm, size_t n, uint16_t* words) {
  for (size_t i = 0; i < n; ++i) {
    const auto word = static_cast<uint32_t>((sm[i] & 0x80) << 8 | (sm[i] & 0x7f) | exponents[i] << 7);
    words[i] = static_cast<uint16_t>(word);
  }
}

/// Decodes tile `tile` of the DF11 stream at `stored`, a valid one.
inline void decode_df11(const std::byte* stored, const TileGrid& grid, uint64_t tile, uint16_t* words) {
  uint64_t total = 0;
  std::memcpy(&total, stored, sizeof total);
  uint32_t place = 0;
  std::memcpy(&place, stored + kDf11Directory + 4 * tile, sizeof place);
  const size_t n = grid.words(tile), begin = size_t{8} * place;
  const auto* bytes = reinterpret_cast<const uint8_t*>(stored);
  uint16_t sizes[kStreams - 1];
  std::memcpy(sizes, bytes + begin, sizeof sizes);
  const uint8_t* sm = bytes + begin + kDf11TileHead;
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
  uint8_t exponents[kTileWords];
  decode_exponents(table_of(stored + kDf11Lengths), streams, n, exponents);
  merge_words(exponents, sm, n, words);
}

/// Decodes tile `tile` of the DF12 stream at `stored`, a valid one.
inline void decode_df12(const std::byte* stored, const TileGrid& grid, uint64_t tile, uint16_t* words) {
  const size_t n = grid.words(tile);
  const uint64_t planes = kDf12Directory + 4 * (grid.tiles() + 1);
  const auto* bytes = reinterpret_cast<const uint8_t*>(stored);
  const uint8_t* nibbles = bytes + planes + grid.first_word(tile) / 2 * 3;
  const uint8_t* sm = nibbles + n / 2;
  const unsigned base = bytes[kDf12Base];
  for (size_t i = 0; i < n; i += 64, nibbles += 32, sm += 64) {
    for (size_t j = 0; j < 32; ++j) {
      words[i + j] = static_cast<uint16_t>((sm[j] & 0x80u) << 8 | (sm[j] & 0x7fu) | (base + (nibbles[j] & 15u)) << 7);
    }
    for (size_t j = 0; j < 32; ++j) {
      words[i + 32 + j] =
          static_cast<uint16_t>((sm[32 + j] & 0x80u) << 8 | (sm[32 + j] & 0x7fu) | (base + (nibbles[j] >> 4)) << 7);
    }
  }
  uint32_t escapes[2];
  std::memcpy(escapes, bytes + kDf12Directory + 4 * tile, sizeof escapes);
  const uint8_t* list = bytes + planes + grid.stripes() * kTileRows * grid.columns / 2 * 3;
  for (uint32_t e = escapes[0]; e < escapes[1]; ++e) {
    uint16_t place = 0;
    std::memcpy(&place, list + kDf12Escape * size_t{e}, sizeof place);
    uint16_t& word = words[place & (kTileWords - 1)];
    word = static_cast<uint16_t>((word & 0x807fu) | unsigned{list[kDf12Escape * size_t{e} + 2]} << 7);
  }
}

}  // namespace mneme::dfloat::MNEME_TARGET
