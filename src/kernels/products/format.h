#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

/// How stored weights become the operands of the product kernels.
///
/// All products work on tiles of kStripeRows rows x kTileColumns columns with the 16 rows side by side in a vector. A
/// tile comes in one of three currencies: 8-bit levels with a scale (and maybe a minimum) per row and group of columns,
/// pairs of bfloat16, or f32. A stored type is described by where its scales are (header), how its codes lie in a
/// packed tile (planes), and how codes map to levels; formats.h has one description a type.
namespace mneme::kernels::products {

constexpr size_t kStripeRows = 16;
constexpr size_t kTileColumns = 256;
constexpr size_t kBlockColumns = 32;  ///< Columns that share the scale of an activation block.
constexpr size_t kTileBlocks = kTileColumns / kBlockColumns;
constexpr size_t kBlockQuads = kBlockColumns / 4;
constexpr size_t kVectorBytes = 4 * kStripeRows;  ///< A vector holds four columns (a quad) of 16 rows as bytes.

/// Bits of a code, split into planes. In a packed tile each block of 32 columns (256 for kTrits) holds its planes in
/// this order. A plane is made of vectors; byte 4r + i of a vector belongs to row r and column 4q + i of one or several
/// quads q = 0..7 (0..63).
enum class Planes : uint8_t {
  kByte,          ///< 8 vectors: vector q holds quad q.
  kNibble,        ///< 4 vectors: vector v holds quad v in the low and quad v + 4 in the high nibble.
  kNibbleOne,     ///< kNibble, then 1 vector with bit 4 of quad q in bit q.
  kNibbleTwo,     ///< kNibble, then 2 vectors: vector v holds bits 4-5 of quad 4v + j in bits 2j and 2j + 1.
  kTwo,           ///< 2 vectors: vector v holds quad 4v + j in bits 2j and 2j + 1.
  kTwoOne,        ///< kTwo, then 1 vector with bit 2 of quad q in bit q.
  kOne,           ///< 1 vector with quad q in bit q.
  kNibbleTwoOne,  ///< kNibbleTwo, then 1 vector with bit 6 of quad q in bit q.
  kTrits,         ///< 13 vectors: vector v holds the base-3 digits of quads 5v to 5v + 4, see TritCode.
};

/// Columns of a block whose planes lie together.
constexpr size_t plane_columns(Planes planes) {
  return planes == Planes::kTrits ? kTileColumns : kBlockColumns;
}

/// Vectors of all planes of a block.
constexpr size_t plane_vectors(Planes planes) {
  switch (planes) {
    case Planes::kByte:
      return 8;
    case Planes::kNibble:
      return 4;
    case Planes::kNibbleOne:
      return 5;
    case Planes::kNibbleTwo:
      return 6;
    case Planes::kTwo:
      return 2;
    case Planes::kTwoOne:
      return 3;
    case Planes::kOne:
      return 1;
    case Planes::kNibbleTwoOne:
      return 7;
    case Planes::kTrits:
      return 13;
  }
  return 0;
}

/// Five base-3 digits in a byte e. Digit n comes from the upper two bits of a mean, which takes three instructions on
/// bytes: level = mean(r, mean(r, 252)) & 192 for r = e 3^n mod 256, where mean(a, b) = (a + b + 1) / 2 without the
/// remainder, and levels of 64, 128 and 192 are the digits 0, 1 and 2. (The bytes of TQ1_0 are others: its digits are
/// floor(3 r / 256), for which lanes of bytes are too narrow.)
struct TritCode {
  static constexpr size_t kDigits = 5;
  static constexpr uint8_t kOffset = 252;

  static constexpr unsigned level(unsigned r) { return ((r + (r + kOffset + 1) / 2 + 1) / 2) & 192u; }
  /// The byte of digits n_0 ... n_4 by 81 n_0 + 27 n_1 + 9 n_2 + 3 n_3 + n_4.
  static constexpr std::array<uint8_t, 243> bytes() {
    std::array<uint8_t, 243> out{};
    size_t found = 0;
    for (unsigned e = 0; e < 256; ++e) {
      unsigned number = 0, r = e;
      bool valid = true;
      for (size_t n = 0; n < kDigits; ++n, r = r * 3 & 255u) {
        valid = valid && level(r) > 0;
        number = 3 * number + level(r) / 64 - (valid ? 1 : 0);
      }
      if (!valid || out[number] != 0) continue;
      out[number] = static_cast<uint8_t>(e);
      ++found;
    }
    return found == out.size() ? out : throw "some digits have no byte";
  }
};

/// A run of equal fields of a block that belong to its header, e.g. 12 bytes of packed 6-bit scales.
struct HeaderRun {
  uint8_t offset, width, count;  ///< Byte offset in the block, bytes a field (1 or 2), number of fields.
};

/// Operands of the 8-bit product: w = scale * (level - zero) - minimum, with `zero` a constant of the type.
struct TileScales {
  alignas(64) float scale[kTileColumns / 16][kStripeRows];    ///< [group][row]
  alignas(64) float minimum[kTileColumns / 16][kStripeRows];  ///< Unused by types without minimum.
  /// Level of the code that means something else in each block, four times side by side; types with kSpecialCode only.
  alignas(64) uint32_t special[kTileColumns / 128][kStripeRows];
};
struct Int8Tile {
  alignas(64) uint8_t levels[kTileColumns / 4][kVectorBytes];  ///< [column quad][4 * row + column in quad]
  TileScales scales;
};

}  // namespace mneme::kernels::products
