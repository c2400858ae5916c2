#pragma once

#include "kernels/products/block_codes-inl.h"
#include "kernels/products/micro-inl.h"

// Operands of one stripe and tile, from rows as they are in files or from packed tiles. Compiled once a target.
namespace mneme::kernels::products::MNEME_TARGET {

/// Pointers to the 16 rows of a stripe of a plain matrix, at column 256 * tile. Rows beyond the last repeat it; their
/// results are dropped.
struct PlainRows {
  const uint8_t* rows[kStripeRows];

  PlainRows(const Matrix& matrix, size_t stripe, size_t row_bytes, size_t offset) {
    for (size_t r = 0; r < kStripeRows; ++r) {
      const size_t row = std::min(stripe * kStripeRows + r, matrix.rows - 1);
      rows[r] = reinterpret_cast<const uint8_t*>(matrix.data) + row * row_bytes + offset;
    }
  }
};

/// out[i][r] = 32-bit word i of row r. `n_words` words are readable; the rest up to a multiple of 16 becomes zero.
inline void transpose_words(const uint8_t* const (&rows)[kStripeRows], size_t n_words, uint8_t* out) {
  size_t i = 0;
  for (; i + 16 <= n_words; i += 16) Isa::transpose_16(rows, 4 * i, out + i * kVectorBytes);
  if (i == n_words) return;
  alignas(64) uint8_t rest[kStripeRows][64] = {};
  const uint8_t* pointers[kStripeRows];
  for (size_t r = 0; r < kStripeRows; ++r) {
    std::memcpy(rest[r], rows[r] + 4 * i, 4 * (n_words - i));
    pointers[r] = rest[r];
  }
  Isa::transpose_16(pointers, 0, out + i * kVectorBytes);
}

/// The headers of `n` blocks of each row, fields side by side.
template <class Format>
void gather_headers(const PlainRows& plain, size_t n, uint8_t* out) {
  for (size_t b = 0; b < n; ++b) {
    for (const HeaderRun& run : Format::kHeader) {
      for (size_t i = 0; i < run.count; ++i, out += run.width * kStripeRows) {
        const size_t offset = b * Format::kBytes + run.offset + i * run.width;
        if (run.width == 1) {
          for (size_t r = 0; r < kStripeRows; ++r) out[r] = plain.rows[r][offset];
        } else {
          for (size_t r = 0; r < kStripeRows; ++r) std::memcpy(out + 2 * r, plain.rows[r] + offset, 2);
        }
      }
    }
  }
}

template <class Format>
void plain_int8(const PlainRows& plain, size_t columns, Int8Tile& tile) {
  const size_t n = columns / Format::kBlock;
  constexpr size_t kMostBlocks = kTileColumns / Format::kBlock;
  uint8_t headers[kMostBlocks * header_bytes<Format>() * kStripeRows];
  gather_headers<Format>(plain, n, headers);
  tile_scales(Format(), headers, n, tile.scales);
  alignas(64) uint8_t codes[kStripeRows][kTileColumns];
  const uint8_t* pointers[kStripeRows];
  for (size_t r = 0; r < kStripeRows; ++r) {
    for (size_t b = 0; b < n; ++b) {
      block_codes(Format(), plain.rows[r] + b * Format::kBytes, codes[r] + b * Format::kBlock);
    }
    pointers[r] = codes[r];
  }
  transpose_words(pointers, columns / 4, tile.levels[0]);
  if constexpr (has_levels<Format>()) {
    for (size_t q = 0; q < columns / 4; ++q) {
      const uint32_t* special = tile.scales.special[special_row<Format>(q / kBlockQuads)];
      Isa::store_bytes(tile.levels[q], code_levels<Format>(Isa::load_bytes(tile.levels[q]), special));
    }
  }
}

/// The same from the tile at `at` of the packed matrix `packed`.
template <class Format>
void packed_int8(const uint8_t* packed, const PackedTile& at, size_t columns, Int8Tile& tile) {
  tile_scales(Format(), packed + at.header, columns / Format::kBlock, tile.scales);
  if constexpr (Format::kPlanes == Planes::kTrits) {
    Isa::Bytes rest = Isa::set_bytes(0);
    for (size_t q = 0; q < columns / 4; ++q) {
      Isa::store_bytes(tile.levels[q], next_trits(packed + at.planes, q, rest));
    }
    return;
  }
  for (size_t b = 0; b < columns / kBlockColumns; ++b) {
    Isa::Bytes levels[kBlockQuads];
    block_levels<Format>(packed + at.planes + b * at.block_stride, tile.scales.special[special_row<Format>(b)], levels);
    for (size_t q = 0; q < kBlockQuads; ++q) Isa::store_bytes(tile.levels[b * kBlockQuads + q], levels[q]);
  }
}

/// f32 tile [column][row] of any type that decodes.
inline void plain_f32(DType dtype, const PlainRows& plain, size_t columns, float* out) {
  const DTypeInfo& info = dtype_info(dtype);
  alignas(64) float values[kStripeRows][kTileColumns];
  const uint8_t* pointers[kStripeRows];
  for (size_t r = 0; r < kStripeRows; ++r) {
    info.decode(reinterpret_cast<const std::byte*>(plain.rows[r]), values[r], columns);
    pointers[r] = reinterpret_cast<const uint8_t*>(values[r]);
  }
  transpose_words(pointers, columns, reinterpret_cast<uint8_t*>(out));
}

/// bfloat16 tile [pair][row][2]; an odd last column is paired with zero.
inline void plain_bf16(const PlainRows& plain, size_t columns, uint8_t* out) {
  if (columns % 2 == 0) return transpose_words(plain.rows, columns / 2, out);
  alignas(64) uint8_t padded[kStripeRows][2 * kTileColumns];
  const uint8_t* pointers[kStripeRows];
  for (size_t r = 0; r < kStripeRows; ++r) {
    std::memcpy(padded[r], plain.rows[r], 2 * columns);
    std::memset(padded[r] + 2 * columns, 0, 2);
    pointers[r] = padded[r];
  }
  transpose_words(pointers, columns / 2 + 1, out);
}

}  // namespace mneme::kernels::products::MNEME_TARGET
