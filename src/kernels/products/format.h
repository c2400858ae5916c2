#pragma once

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

/// Bits of a code, split into planes. In a packed tile each block of 32 columns holds its planes in this order. A plane
/// is made of vectors; byte 4r + i of a vector belongs to row r and column 4q + i of one or several quads q = 0..7.
enum class Planes : uint8_t {
  kByte,          ///< 8 vectors: vector q holds quad q.
  kNibble,        ///< 4 vectors: vector v holds quad v in the low and quad v + 4 in the high nibble.
  kNibbleOne,     ///< kNibble, then 1 vector with bit 4 of quad q in bit q.
  kNibbleTwo,     ///< kNibble, then 2 vectors: vector v holds bits 4-5 of quad 4v + j in bits 2j and 2j + 1.
  kTwo,           ///< 2 vectors: vector v holds quad 4v + j in bits 2j and 2j + 1.
  kTwoOne,        ///< kTwo, then 1 vector with bit 2 of quad q in bit q.
  kOne,           ///< 1 vector with quad q in bit q.
  kNibbleTwoOne,  ///< kNibbleTwo, then 1 vector with bit 6 of quad q in bit q.
};

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
  }
  return 0;
}

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
