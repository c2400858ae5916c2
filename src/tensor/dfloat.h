#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "tensor/weight_format.h"

/// DFloat11 (arXiv 2504.11651): bfloat16 weights without loss in about 11 bits. Trained weights use few exponents,
/// about 2.6 bits of entropy of 8, so the exponents are Huffman-coded and sign and mantissa kept as they are:
///
///     word = sign << 15 | exponent << 7 | mantissa,   sm = sign << 7 | mantissa   (8 bits, stored raw)
///
/// DF11 here codes tiles of 16 rows x 256 columns apart from one another, each in four streams, so that any tile can be
/// decoded alone, tiles are the unit of parallel work, and four independent chains of table look-ups overlap. (The
/// paper codes whole blocks of a model for thousands of GPU threads, which find their places in two passes; the
/// directory of tiles takes the place of its gaps and positions.) Codes have at most 12 bits: one table of 4096 entries
/// gives up to six exponents a look-up.
///
/// DF12 is a sibling of fixed rate: 15 consecutive exponents get a nibble, code 15 marks an escape that is listed
/// apart. Twelve bits and a little, decoded by shifts and additions alone.
///
/// A tile holds its 16 n words in the order [pair of columns][row][2], which is what products read; rows beyond the
/// last repeat it. Columns are a multiple of 4. docs/formats/weight-types.md has the bytes.
///
/// Not here: the paper's GPU kernel and its interchange form.
namespace mneme::dfloat {

constexpr size_t kTileRows = 16, kTileColumns = 256, kTileWords = kTileRows * kTileColumns;
constexpr size_t kStreams = 4;
constexpr unsigned kMaxCodeBits = 12;
constexpr size_t kTableSize = size_t{1} << kMaxCodeBits;

std::unique_ptr<WeightFormat> make_df11();
std::unique_ptr<WeightFormat> make_df12();

// Offsets from the start of a stream (kStreamHead bytes of size and mark come first).
constexpr size_t kDf11Lengths = kStreamHead;  ///< u8[256]: code bits of each exponent, 0 where it does not occur.
constexpr size_t kDf11Directory = kDf11Lengths + 256;  ///< u32[tiles + 1]: where tiles begin, in units of 8 bytes.
constexpr size_t kDf11TileHead = 8;                    ///< u16[3]: bytes of streams 0 to 2; then sm, then the streams.
/// Most bytes from the start of a tile that decoding it may touch, whatever its bits.
constexpr size_t kDf11MostTileBytes =
    kDf11TileHead + kTileWords + (kStreams - 1) * 65535 + kTileWords / kStreams * kMaxCodeBits / 8 + 8;

constexpr size_t kDf12Base = 12;                ///< u8: the exponent of code 0.
constexpr size_t kDf12Directory = kStreamHead;  ///< u32[tiles + 1]: index of the first escape of each tile.
constexpr size_t kDf12Escape = 3;               ///< Bytes of an escape: u16 place in the tile, u8 exponent.

/// A bfloat16 with another exponent.
constexpr uint16_t with_exponent(uint16_t word, unsigned exponent) {
  return static_cast<uint16_t>((word & 0x807fu) | exponent << 7);
}

/// How a matrix is cut into tiles.
struct TileGrid {
  uint64_t rows, columns;
  uint64_t column_tiles() const { return (columns + kTileColumns - 1) / kTileColumns; }
  uint64_t stripes() const { return (rows + kTileRows - 1) / kTileRows; }
  uint64_t tiles() const { return stripes() * column_tiles(); }
  size_t words(uint64_t tile) const {
    const uint64_t first = tile % column_tiles() * kTileColumns;
    return kTileRows * static_cast<size_t>(columns - first < kTileColumns ? columns - first : kTileColumns);
  }
  /// Words of all tiles before this one.
  uint64_t first_word(uint64_t tile) const {
    return kTileRows * (tile / column_tiles() * columns + tile % column_tiles() * kTileColumns);
  }
};

/// Code lengths of at most kMaxCodeBits of a Huffman code for these counts; one symbol alone gets one bit.
std::array<uint8_t, 256> code_lengths(const std::array<uint64_t, 256>& counts);
/// True when the lengths are those of a complete prefix code (Kraft sum of 1), or of one symbol alone.
bool is_complete(const std::array<uint8_t, 256>& lengths);
/// Canonical codes: shorter ones first, equal ones by exponent; in the low bits.
std::array<uint16_t, 256> canonical_codes(const std::array<uint8_t, 256>& lengths);

/// What each window of kMaxCodeBits bits begins with: in byte 0 the bits that its whole codes take, in byte 1 their
/// number, 1 to kMostCodes, then their exponents (those beyond the number are zero).
using DecodeTable = std::array<uint64_t, kTableSize>;
constexpr unsigned kMostCodes = 6, kEntryCount = 8, kEntryCodes = 16;
void fill_table(const std::array<uint8_t, 256>& lengths, DecodeTable& table);
/// The table for the code lengths at `lengths`, kept for the calling thread until it asks for another.
const DecodeTable& table_of(const std::byte* lengths);

}  // namespace mneme::dfloat
