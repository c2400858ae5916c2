#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/function_ref.h"

namespace mneme {

/// One piece of a file, and where it goes. For files opened with O_DIRECT offset, length and address are multiples of
/// the page size.
struct ReadRequest {
  uint64_t offset;
  uint32_t bytes;
  std::byte* target;
  int file = -1;  ///< Descriptor; AsyncReader::read() fills it in.
};

/// Reads many pieces of files at once through io_uring, or one after the other where the kernel refuses that
/// (containers often do); then it says so once in the log. One thread at a time.
class AsyncReader {
 public:
  /// Given instead of an errno when a file ends before the piece does.
  static constexpr int kFileEnded = -1;

  AsyncReader();
  ~AsyncReader();

  /// Begins to read; the caller may do other work until finish(). `requests` and their targets stay alive until then.
  /// One batch at a time.
  void start(std::span<const ReadRequest> requests);
  /// Waits for the batch. Calls done(i, error) as request i ends, in order of their coming; error is 0, an errno or
  /// kFileEnded. `done` may throw; then no more are begun, what is under way is waited for, and it is thrown on.
  void finish(FunctionRef<void(size_t, int)> done);

  /// Both for one file. Throws Error(kIo), or Error(kCorruptData) when the file ends too early, after all reads under
  /// way have ended. `done` may throw as above.
  void read(int file, std::span<ReadRequest> requests, FunctionRef<void(size_t)> done, const char* path);

  /// Whether this process may use io_uring.
  static bool has_ring();
  /// Makes readers that are created from now on work without io_uring; for tests.
  static void refuse_ring(bool refuse);

 private:
  struct Ring;
  void submit();

  std::unique_ptr<Ring> ring_;
  std::span<const ReadRequest> requests_;
  std::vector<bool> ended_;  ///< By request, those that a failing ring must not read again.
  size_t n_submitted_ = 0, n_ended_ = 0;
};

/// Opens a file for reads that pass by the page cache, where its file system can (O_DIRECT), otherwise for plain reads.
/// Throws Error(kIo). The caller closes it.
int open_direct(const char* path);

}  // namespace mneme
