#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "tensor/weight_format.h"

/// BitStack (arXiv 2410.23918): a matrix W [rows, columns] as a stack of blocks of about one bit a weight, each of
/// which stores the signs of what the blocks before it left over, and a product of low rank for the magnitudes:
///
///     W = sum over blocks i of  S_i * (U_i V_i)      (* element by element),  S_i in {-1, +1}, U_i [rows, k], V_i [k,
///     columns]
///
/// Any number of blocks from the first on is a matrix, so its size can change while it is used. The blocks of all
/// matrices of a model lie in one order, and a prefix of them is a model (weights/stack_file.h, weights/block_stack.h).
///
/// A tensor of this type is a directory; its blocks are elsewhere. Directory: u64 bytes, u32 type id (kStreamHead comes
/// first), u32 k from 1 to 16, then for each block, at kFirstEntry, u64 place and u64 checksum. A block, with rows
/// padded to P, a multiple of 16, and columns to Q, a multiple of 32:
///
///     signs   P Q / 8 bytes: stripes 2i and 2i + 1 of 16 rows share a run of memory (an odd last one is alone), which
///             holds for each 32 columns a u32 of each row of the first stripe, then those of the second; column c has
///             bit 8 (c % 4) + c / 4 of the word, set for +1
///     U^T     f16 [k, P]
///     V       f16 [k, Q]
///
/// That is the order in which products read signs (kernels/products/formats.h: a packed plane of one bit). What is
/// padding does not matter; it is written as zeros. Scales of the input channels, which the paper keeps apart or moves
/// into norms, are inside V here: every product multiplies its input with V anyway.
namespace mneme::bitstack {

constexpr uint32_t kMostVectors = 16, kMostBlocks = 64;
constexpr size_t kStripe = 16, kColumnGroup = 32;
constexpr size_t kVectorsAt = 12, kFirstEntry = kStreamHead, kEntryBytes = 16;

/// Where the parts of a block lie, bytes from its start.
struct BlockLayout {
  uint64_t rows, columns, vectors;

  uint64_t padded_rows() const { return (rows + kStripe - 1) / kStripe * kStripe; }
  uint64_t padded_columns() const { return (columns + kColumnGroup - 1) / kColumnGroup * kColumnGroup; }
  uint64_t u_offset() const { return padded_rows() * padded_columns() / 8; }
  uint64_t v_offset() const { return u_offset() + 2 * vectors * padded_rows(); }
  uint64_t bytes() const { return v_offset() + 2 * vectors * padded_columns(); }
  /// Bytes from the start to the words of 32 columns from `column` on of a stripe: word r belongs to its row r.
  uint64_t words(uint64_t stripe, uint64_t column) const {
    const uint64_t pair = stripe / 2 * 2, width = pair + 1 < padded_rows() / kStripe ? 2 : 1,
                   groups = padded_columns() / kColumnGroup;
    return 4 * kStripe * (pair * groups + width * (column / kColumnGroup) + stripe - pair);
  }
};

/// Bit of column `c` in the word of its 32 columns.
constexpr uint32_t sign_bit(uint64_t c) {
  return static_cast<uint32_t>(8 * (c % 4) + c % kColumnGroup / 4);
}

/// The blocks of one matrix that may be read now. Whoever owns it may change `n_blocks` while no product runs.
struct BlockList {
  uint32_t vectors = 0;
  uint32_t n_blocks = 0;  ///< At most offsets.size().
  const std::byte* base = nullptr;
  std::vector<uint64_t> offsets;  ///< Of each block of the matrix from `base`.

  const std::byte* block(size_t i) const { return base + offsets[i]; }
};

/// One entry of a directory.
struct Entry {
  uint64_t place = 0, checksum = 0;  ///< Bytes from the start of the tensor of all blocks; XXH3 of the block.
};

/// A directory in the form of a file.
std::vector<std::byte> write_directory(uint32_t vectors, std::span<const Entry> entries);
/// The same back; the directory must be valid.
uint32_t directory_vectors(const TensorView& directory);
std::vector<Entry> directory_entries(const TensorView& directory);

/// Largest number of vectors whose factors cost at most an eighth of a bit a weight and block, from 1 to kMostVectors.
uint32_t vectors_for(uint64_t rows, uint64_t columns);

/// Writes the signs of `w` [rows, columns] (zero counts as +1) to a block of layout.bytes() zeros.
void pack_signs(const BlockLayout& layout, const float* w, std::byte* block);
/// out = S * (U V) of rows [first, first + n) of a block: [n, columns].
void decode_block(const BlockLayout& layout, const std::byte* block, uint64_t first, uint64_t n, float* out);

std::unique_ptr<WeightFormat> make_format();

}  // namespace mneme::bitstack
