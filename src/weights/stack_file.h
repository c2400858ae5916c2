#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "weights/model_file.h"
#include "weights/stack_order.h"

/// Model files with BitStack matrices (arXiv 2410.23918, tensor/bitstack.h). Each such matrix is a directory under its
/// own name; the blocks of all of them follow one another in the tensor kBlocksName, the last one of the file, in the
/// order in which they are loaded. A file that was cut off anywhere behind the first blocks is a smaller model, so
/// `head -c 900M big.gguf > small.gguf` makes one.
namespace mneme::bitstack {

inline constexpr std::string_view kBlocksName = "mneme.bitstack.blocks";

/// Connects the directories of a file that was opened with its blocks: sets TensorView::blocks to all whole blocks that
/// are there. Checks that blocks lie one behind another without gaps. Throws Error(kCorruptData); blocks themselves are
/// not read.
void bind_blocks(ModelFile::Parts& parts);

/// Where each block lies in the tensor of all blocks.
struct PlacedBlock {
  BlockId id;  ///< Matrix: index among the BitStack tensors of the file, in its order.
  uint64_t place = 0, bytes = 0, checksum = 0;
};
/// Those of a file that are there whole, in order.
std::vector<PlacedBlock> placed_blocks(const ModelFile& file);

/// A matrix on its way into a file.
struct StackedMatrix {
  std::string name;
  Shape shape;
  uint32_t vectors = 1;
  std::vector<std::span<const std::byte>> blocks;  ///< By level.
  std::vector<uint64_t> checksums;                 ///< Of blocks.
};

/// XXH3 of a block.
uint64_t block_checksum(std::span<const std::byte> block);

/// Bytes of the file that write_stack() makes.
uint64_t stack_file_bytes(const Metadata& metadata, std::span<const NamedTensor> others,
                          std::span<const StackedMatrix> matrices, std::span<const BlockId> order);
/// Writes a model: `others` as they are and the blocks of `matrices` in `order`, which may leave out the upper ones.
void write_stack(const std::string& path, const Metadata& metadata, std::span<const NamedTensor> others,
                 std::span<const StackedMatrix> matrices, std::span<const BlockId> order);

/// The BitStack matrices of an open file, to be written once more; views into it.
std::vector<StackedMatrix> stacked_matrices(const ModelFile& file);
/// The other tensors of an open file, without that of the blocks.
std::vector<NamedTensor> other_tensors(const ModelFile& file);

}  // namespace mneme::bitstack
