#include "kernels/products/packing.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "base/checked_math.h"
#include "kernels/products/formats.h"
#include "tensor/bipolar.h"

#define MNEME_TARGET packing
#include "kernels/products/block_codes-inl.h"

namespace mneme::kernels::products {
namespace {

/// Bits of one block of 32 columns of 16 rows, spread over its planes. codes[r] has the 32 codes of row r.
void write_planes(Planes planes, const uint8_t* const (&codes)[kStripeRows], uint8_t* out) {
  const bool six = planes == Planes::kNibbleTwo || planes == Planes::kNibbleTwoOne;
  const bool nibbles = planes == Planes::kNibble || planes == Planes::kNibbleOne || six;
  const auto quad_byte = [](size_t vector, size_t row, size_t i) { return vector * kVectorBytes + 4 * row + i; };
  std::memset(out, 0, plane_vectors(planes) * kVectorBytes);
  for (size_t r = 0; r < kStripeRows; ++r) {
    for (size_t q = 0; q < kBlockQuads; ++q) {
      for (size_t i = 0; i < 4; ++i) {
        const unsigned code = codes[r][4 * q + i];
        const auto put = [&](size_t vector, unsigned bits, size_t shift) {
          out[quad_byte(vector, r, i)] |= static_cast<uint8_t>(bits << shift);
        };
        if (planes == Planes::kByte) put(q, code, 0);
        if (nibbles) put(q % 4, code & 15u, 4 * (q / 4));
        if (planes == Planes::kNibbleOne) put(4, code >> 4, q);
        if (six) put(4 + q / 4, code >> 4 & 3u, 2 * (q % 4));
        if (planes == Planes::kNibbleTwoOne) put(6, code >> 6, q);
        if (planes == Planes::kOne) put(0, code, q);
        if (planes == Planes::kTwo || planes == Planes::kTwoOne) put(q / 4, code & 3u, 2 * (q % 4));
        if (planes == Planes::kTwoOne) put(2, code >> 2, q);
      }
    }
  }
}

/// Digits of one tile of 16 rows. codes[r] has the 256 codes of row r, at most 2 each.
void write_trits(const uint8_t* const (&codes)[kStripeRows], uint8_t* out) {
  static constexpr std::array kBytes = TritCode::bytes();
  for (size_t v = 0; v < plane_vectors(Planes::kTrits); ++v) {
    for (size_t r = 0; r < kStripeRows; ++r) {
      for (size_t i = 0; i < 4; ++i) {
        unsigned number = 0;
        for (size_t q = TritCode::kDigits * v; q < TritCode::kDigits * (v + 1); ++q) {
          number = 3 * number + (q < kTileColumns / 4 ? codes[r][4 * q + i] : 0u);
        }
        out[v * kVectorBytes + 4 * r + i] = kBytes[number];
      }
    }
  }
}

struct RowPointers {
  const uint8_t* rows[kStripeRows];

  RowPointers(const Matrix& plain, size_t stripe) {
    const size_t bytes = row_bytes(plain.dtype, plain.columns);
    for (size_t r = 0; r < kStripeRows; ++r) {
      const size_t row = std::min(stripe * kStripeRows + r, plain.rows - 1);
      rows[r] = reinterpret_cast<const uint8_t*>(plain.data) + row * bytes;
    }
  }
};

template <class Format>
void pack_tile(const RowPointers& from, size_t first_block, size_t n_blocks, const PackedTile& tile, uint8_t* out) {
  uint8_t* header = out + tile.header;
  for (size_t b = first_block; b < first_block + n_blocks; ++b) {
    for (const HeaderRun& run : Format::kHeader) {
      for (size_t i = 0; i < run.count; ++i, header += run.width * kStripeRows) {
        for (size_t r = 0; r < kStripeRows; ++r) {
          std::memcpy(header + run.width * r, from.rows[r] + b * Format::kBytes + run.offset + i * run.width,
                      run.width);
        }
      }
    }
  }
  uint8_t* planes = out + tile.planes;
  for (size_t b = first_block; b < first_block + n_blocks; ++b) {
    uint8_t codes[kStripeRows][Format::kBlock];
    for (size_t r = 0; r < kStripeRows; ++r)
      packing::block_codes(Format(), from.rows[r] + b * Format::kBytes, codes[r]);
    for (size_t k = 0; k < Format::kBlock; k += plane_columns(Format::kPlanes), planes += tile.block_stride) {
      const uint8_t* block[kStripeRows];
      for (size_t r = 0; r < kStripeRows; ++r) block[r] = codes[r] + k;
      if constexpr (Format::kPlanes == Planes::kTrits) {
        write_trits(block, planes);
      } else {
        write_planes(Format::kPlanes, block, planes);
      }
    }
  }
}

template <class Format>
void pack_blocks(const Matrix& plain, size_t first, size_t last, std::byte* out) {
  const size_t n_stripes = div_up(plain.rows, kStripeRows);
  for (size_t stripe = first; stripe < last; ++stripe) {
    const RowPointers from(plain, stripe);
    for (size_t k = 0; k < plain.columns; k += kTileColumns) {
      const size_t n = std::min(kTileColumns, plain.columns - k);
      pack_tile<Format>(from, k / Format::kBlock, n / Format::kBlock,
                        packed_tile<Format>(stripe, n_stripes, k, plain.columns), reinterpret_cast<uint8_t*>(out));
    }
  }
}

/// [unit][row] from rows of units of kBytes; a last unit of which only `rest` bytes exist is filled up with zeros.
template <size_t kBytes>
void pack_units(const Matrix& plain, size_t row_length, size_t first, size_t last, std::byte* out) {
  const size_t n_units = div_up(row_length, kBytes);
  for (size_t stripe = first; stripe < last; ++stripe) {
    const RowPointers from(plain, stripe);
    std::byte* to = out + stripe * n_units * kStripeRows * kBytes;
    // Runs of columns that keep both sides in cache.
    constexpr size_t kRun = 64;
    for (size_t begin = 0; begin < n_units; begin += kRun) {
      const size_t end = std::min(begin + kRun, n_units);
      for (size_t r = 0; r < kStripeRows; ++r) {
        for (size_t u = begin; u < end; ++u) {
          std::byte unit[kBytes] = {};
          std::memcpy(unit, from.rows[r] + u * kBytes, std::min(kBytes, row_length - u * kBytes));
          std::memcpy(to + (u * kStripeRows + r) * kBytes, unit, kBytes);
        }
      }
    }
  }
}

}  // namespace

size_t packed_size(DType dtype, size_t rows, size_t columns) {
  const size_t n_stripes = div_up(rows, kStripeRows);
  switch (dtype) {
#define MNEME_CASE(Format) \
  case Format::kDType:     \
    return n_stripes * packed_stripe_bytes<Format>(columns);
    MNEME_INT8_FORMATS(MNEME_CASE)
#undef MNEME_CASE
    case DType::kF32:
      return n_stripes * kStripeRows * columns * 4;
    case DType::kF16:
      return n_stripes * kStripeRows * columns * 2;
    case DType::kBF16:
      return n_stripes * kStripeRows * round_up(columns, size_t{2}) * 2;
    default:
      return 0;
  }
}

void pack_stripes(const Matrix& plain, size_t first, size_t last, std::byte* out) {
  switch (plain.dtype) {
#define MNEME_CASE(Format) \
  case Format::kDType:     \
    return pack_blocks<Format>(plain, first, last, out);
    MNEME_INT8_FORMATS(MNEME_CASE)
#undef MNEME_CASE
    case DType::kF32:
      return pack_units<4>(plain, plain.columns * 4, first, last, out);
    case DType::kF16:
      return pack_units<2>(plain, plain.columns * 2, first, last, out);
    case DType::kBF16:
      return pack_units<4>(plain, plain.columns * 2, first, last, out);
    default:
      assert(!"the type has a packed form");
  }
}

void pack_plane_stripes(const Matrix& plain, size_t first, size_t last, std::byte* out) {
  const size_t groups = plain.columns / 128, bits = static_cast<size_t>(bipolar::bits_of(plain.dtype)),
               block = 2 + 16 * bits;
  for (size_t stripe = first; stripe < last; ++stripe) {
    const RowPointers from(plain, stripe);
    for (size_t g = 0; g < groups; ++g) {
      std::byte* to = out + (stripe * groups + g) * kStripeRows * block;
      for (size_t r = 0; r < kStripeRows; ++r) {
        const uint8_t* source = from.rows[r] + g * block;
        std::memcpy(to + 2 * r, source, 2);
        for (size_t word = 0; word < 4 * bits; ++word) {
          std::memcpy(to + 2 * kStripeRows + 4 * (word * kStripeRows + r), source + 2 + 4 * word, 4);
        }
      }
    }
  }
}

}  // namespace mneme::kernels::products
