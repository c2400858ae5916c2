#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "budget/buffer.h"
#include "context/async_reader.h"
#include "context/kv_file.h"

namespace mneme {

/// Blocks of equal size behind a store's working set: in memory, or in a KvFile.
class ValueTier {
 public:
  /// Throws Error(kIo) when there is no file to be had.
  ValueTier(size_t block_bytes, uint64_t most_blocks, bool on_disk, Ledger& ledger);

  /// Bytes of memory that n_blocks take.
  static uint64_t memory_bytes(size_t block_bytes, uint64_t n_blocks, bool on_disk);
  uint64_t memory_bytes() const { return file_ ? Buffer::reserved_bytes(page_.size()) : memory_.committed(); }
  /// Bytes of the file of n_blocks.
  static uint64_t disk_bytes(size_t block_bytes, uint64_t n_blocks);

  /// Makes room, on disk too. Throws Error(kOutOfBudget, kIo).
  void grow_to(uint64_t n_blocks);
  /// Writes a block there is room for. Throws Error(kIo).
  void write(uint64_t block, std::span<const std::byte> bytes);
  /// The block, or null when it is on disk.
  const std::byte* in_memory(uint64_t block) const { return file_ ? nullptr : memory_.data() + block * block_bytes_; }

  /// The request that brings bytes [begin, end) of a block to `target`, widened to whole pages of the file; *skip:
  /// where they begin there.
  ReadRequest request(uint64_t block, size_t begin, size_t end, std::byte* target, size_t* skip) const;
  /// Most bytes that a request for `bytes` reads.
  static size_t most_request_bytes(size_t bytes) { return (bytes + 4095) / 4096 * 4096 + 4096; }
  /// Bytes of a block where it lies: whole pages on disk.
  size_t stride() const { return block_bytes_; }
  /// Reads whole blocks. Throws Error(kIo).
  void read(uint64_t first, uint64_t n_blocks, std::byte* target) const;

  /// -1: in memory.
  int descriptor() const { return file_ ? file_->descriptor() : -1; }

 private:
  size_t block_bytes_;
  GrowingBuffer memory_;
  Buffer page_;                   ///< Aligned copy of a block on its way to the file.
  std::unique_ptr<KvFile> file_;  ///< Null: in memory.
};

}  // namespace mneme
