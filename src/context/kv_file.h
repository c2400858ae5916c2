#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>

#include "budget/ledger.h"

namespace mneme {

/// A file without a name that a store of keys and values owns: it bypasses the page cache where the file system can, so
/// offsets, lengths and addresses are multiples of kPage. It lies in $MNEME_KV_FOLDER, else in $TMPDIR, else in
/// /var/tmp, is counted under Tier::kDisk, and is gone with its owner.
class KvFile {
 public:
  static constexpr size_t kPage = 4096;

  /// `what` names its bytes in the ledger and in messages, and outlives it. Throws Error(kIo) when there is no file to
  /// be had.
  KvFile(Ledger& ledger, const char* what);
  ~KvFile();
  KvFile(const KvFile&) = delete;
  KvFile& operator=(const KvFile&) = delete;

  /// Bytes on the disk of a file with room for `bytes`: it grows in steps, so that the system is not asked for each
  /// block.
  static uint64_t disk_bytes(uint64_t bytes);
  /// Makes room. Throws Error(kOutOfBudget, kIo).
  void grow_to(uint64_t bytes);
  /// Both throw Error(kIo).
  void write(uint64_t offset, std::span<const std::byte> pages);
  void read(uint64_t offset, std::span<std::byte> pages) const;

  int descriptor() const { return file_; }

 private:
  const char* what_;
  Reservation disk_;
  int file_ = -1;
};

/// Memory that a KvFile can be read into, for a moment; not counted. Throws Error(kOutOfBudget).
class AlignedBytes {
 public:
  explicit AlignedBytes(size_t bytes);
  std::byte* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(std::byte* data) const { std::free(data); }
  };
  std::unique_ptr<std::byte[], Free> data_;
};

}  // namespace mneme
