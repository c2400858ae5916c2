#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/function_ref.h"

namespace mneme::ann {

/// One piece of a file, and where it goes. For files opened with O_DIRECT all three are multiples of the page size.
struct ReadRequest {
  uint64_t offset;
  uint32_t bytes;
  std::byte* target;
};

/// Reads many pieces of a file at once through io_uring, or one after the other where the kernel refuses that
/// (containers often do); then it says so once in the log. One thread at a time.
class AsyncReader {
 public:
  AsyncReader();
  ~AsyncReader();

  /// Calls done(i) when request i is complete, in order of their coming. Throws Error(kIo), or Error(kCorruptData) when
  /// the file ends too early, after all reads under way have ended. `done` may throw; then the rest is waited for too.
  void read(int file, std::span<const ReadRequest> requests, FunctionRef<void(size_t)> done, const char* path);

  /// Whether this process may use io_uring.
  static bool has_ring();
  /// Makes readers that are created from now on work without io_uring; for tests.
  static void refuse_ring(bool refuse);

 private:
  struct Ring;
  std::unique_ptr<Ring> ring_;
};

/// Opens a file for reads that pass by the page cache, where its file system can (O_DIRECT), otherwise for plain reads.
/// Throws Error(kIo). The caller closes it.
int open_direct(const char* path);

}  // namespace mneme::ann
