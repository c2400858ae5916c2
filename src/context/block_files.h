#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "context/async_reader.h"

namespace mneme {

/// Reads and writes whole blocks of memory as files, around the page cache (O_DIRECT) where the file system can do
/// that. Several reads run at once through io_uring; where the kernel does not allow it (containers often forbid it),
/// one after another with pread().
class BlockFiles {
 public:
  /// Whether io_uring is in use.
  bool has_ring() const { return AsyncReader::has_ring(); }

  struct Read {
    std::string path;
    std::span<std::byte> into;  ///< Aligned to 4096, whole multiples of it.
    bool done = false;          ///< All bytes were read.
  };
  /// Reads all files, each from its beginning and as much as its span holds.
  void read(std::span<Read> reads);
  /// Writes a file that appears complete or not at all (but is not synced). `bytes` as in Read. Throws Error(kIo).
  static void write(const std::string& path, std::span<const std::byte> bytes);

 private:
  AsyncReader reader_;
};

}  // namespace mneme
