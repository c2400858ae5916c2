#include "weights/stack_file.h"

#include <xxhash.h>

#include <algorithm>
#include <cassert>

#include "base/checked_math.h"
#include "base/error.h"
#include "tensor/bitstack.h"
#include "weights/gguf_writer.h"

namespace mneme::bitstack {
namespace {

uint64_t block_bytes(const TensorView& directory) {
  return BlockLayout{directory.rows(), directory.columns(), directory_vectors(directory)}.bytes();
}

/// Blocks of all directories by their places, whether they are there or not.
std::vector<PlacedBlock> listed_blocks(std::span<const NamedTensor> tensors) {
  std::vector<PlacedBlock> out;
  uint32_t matrix = 0;
  for (const NamedTensor& tensor : tensors) {
    if (tensor.view.dtype != DType::kBitStack) continue;
    uint32_t level = 0;
    for (const Entry& entry : directory_entries(tensor.view)) {
      out.push_back({{matrix, level++}, entry.place, block_bytes(tensor.view), entry.checksum});
    }
    ++matrix;
  }
  std::sort(out.begin(), out.end(), [](const PlacedBlock& a, const PlacedBlock& b) { return a.place < b.place; });
  return out;
}

/// Directories in the form of the file, with the blocks of `order` one behind another.
std::vector<std::vector<std::byte>> make_directories(std::span<const StackedMatrix> matrices,
                                                     std::span<const BlockId> order) {
  std::vector<std::vector<Entry>> entries(matrices.size());
  uint64_t place = 0;
  for (const BlockId& id : order) {
    const StackedMatrix& matrix = matrices[id.matrix];
    assert(entries[id.matrix].size() == id.level);
    entries[id.matrix].push_back({place, matrix.checksums[id.level]});
    place += matrix.blocks[id.level].size();
  }
  std::vector<std::vector<std::byte>> out;
  for (size_t m = 0; m < matrices.size(); ++m) out.push_back(write_directory(matrices[m].vectors, entries[m]));
  return out;
}

std::vector<TensorInfo> infos_of(std::span<const NamedTensor> others, std::span<const StackedMatrix> matrices,
                                 const std::vector<std::vector<std::byte>>& directories,
                                 std::span<const BlockId> order) {
  std::vector<TensorInfo> infos;
  for (const NamedTensor& tensor : others) {
    infos.push_back({tensor.name, tensor.view.dtype, tensor.view.shape, tensor.view.stream_bytes});
  }
  for (size_t m = 0; m < matrices.size(); ++m) {
    infos.push_back({matrices[m].name, DType::kBitStack, matrices[m].shape, directories[m].size()});
  }
  uint64_t bytes = 0;
  for (const BlockId& id : order) bytes += matrices[id.matrix].blocks[id.level].size();
  if (bytes > 0) infos.push_back({std::string(kBlocksName), DType::kI8, Shape{bytes}});
  return infos;
}

}  // namespace

void bind_blocks(ModelFile::Parts& parts) {
  std::vector<NamedTensor*> directories;
  const TensorView* blocks = nullptr;
  for (NamedTensor& tensor : parts.tensors) {
    if (tensor.view.dtype == DType::kBitStack) directories.push_back(&tensor);
    if (tensor.name == kBlocksName && tensor.view.dtype == DType::kI8) blocks = &tensor.view;
  }
  if (directories.empty()) return;
  for (const NamedTensor* directory : directories)
    weight_format(DType::kBitStack).validate(directory->view, directory->name);
  const uint64_t available = blocks != nullptr ? blocks->bytes() : 0;
  uint64_t end = 0;
  for (const PlacedBlock& block : listed_blocks(parts.tensors)) {
    if (block.place != end) {
      fail(ErrorCode::kCorruptData,
           "[read GGUF] tensor '{}': expected its block {} at {}, behind the one before, found {}, in {}",
           directories[block.id.matrix]->name, block.id.level, end, block.place, parts.path);
    }
    end += block.bytes;  // validate() has checked each sum
  }
  if (available > end) {
    fail(ErrorCode::kCorruptData, "[read GGUF] tensor '{}': expected {} bytes of blocks, found {}, in {}", kBlocksName,
         end, available, parts.path);
  }
  for (NamedTensor* directory : directories) {
    BlockList& list = parts.block_lists.emplace_back();
    list.vectors = directory_vectors(directory->view);
    list.base = blocks != nullptr ? blocks->data : nullptr;
    const uint64_t bytes = block_bytes(directory->view);
    const std::vector<Entry> entries = directory_entries(directory->view);
    for (const Entry& entry : entries) {
      if (entry.place + bytes <= available) list.offsets.push_back(entry.place);
    }
    if (list.offsets.empty() && !entries.empty()) {
      fail(ErrorCode::kCorruptData,
           "[read GGUF] tensor '{}': file truncated: expected at least one block of each matrix, {} bytes of blocks, "
           "found {}, in {}",
           directory->name, entries.front().place + bytes, available, parts.path);
    }
    list.n_blocks = static_cast<uint32_t>(list.offsets.size());
    directory->view.blocks = &list;
  }
}

std::vector<PlacedBlock> placed_blocks(const ModelFile& file) {
  std::vector<PlacedBlock> out = listed_blocks(file.tensors());
  const NamedTensor* blocks = file.find(kBlocksName);
  const uint64_t available = blocks != nullptr ? blocks->view.bytes() : 0;
  while (!out.empty() && out.back().place + out.back().bytes > available) out.pop_back();
  return out;
}

uint64_t block_checksum(std::span<const std::byte> block) {
  return XXH3_64bits(block.data(), block.size());
}

uint64_t stack_file_bytes(const Metadata& metadata, std::span<const NamedTensor> others,
                          std::span<const StackedMatrix> matrices, std::span<const BlockId> order) {
  return gguf_bytes(metadata, infos_of(others, matrices, make_directories(matrices, order), order));
}

void write_stack(const std::string& path, const Metadata& metadata, std::span<const NamedTensor> others,
                 std::span<const StackedMatrix> matrices, std::span<const BlockId> order) {
  const std::vector<std::vector<std::byte>> directories = make_directories(matrices, order);
  GgufWriter writer(path, metadata, infos_of(others, matrices, directories, order));
  for (const NamedTensor& tensor : others) writer.write({tensor.view.data, tensor.view.bytes()});
  for (const std::vector<std::byte>& directory : directories) writer.write(directory);
  for (const BlockId& id : order) writer.write(matrices[id.matrix].blocks[id.level]);
  writer.finish();
}

std::vector<StackedMatrix> stacked_matrices(const ModelFile& file) {
  std::vector<StackedMatrix> out;
  for (const NamedTensor& tensor : file.tensors()) {
    if (tensor.view.dtype != DType::kBitStack) continue;
    const BlockList& list = *tensor.view.blocks;
    const std::vector<Entry> entries = directory_entries(tensor.view);
    StackedMatrix& matrix = out.emplace_back();
    matrix.name = tensor.name;
    matrix.shape = tensor.view.shape;
    matrix.vectors = list.vectors;
    for (size_t i = 0; i < list.n_blocks; ++i) {
      matrix.blocks.emplace_back(list.block(i), block_bytes(tensor.view));
      matrix.checksums.push_back(entries[i].checksum);
    }
  }
  return out;
}

std::vector<NamedTensor> other_tensors(const ModelFile& file) {
  std::vector<NamedTensor> out;
  for (const NamedTensor& tensor : file.tensors()) {
    if (tensor.view.dtype != DType::kBitStack && tensor.name != kBlocksName) out.push_back(tensor);
  }
  return out;
}

}  // namespace mneme::bitstack
