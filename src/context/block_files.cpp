#include "context/block_files.h"

#include <fcntl.h>
#include <liburing.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "base/error.h"

namespace mneme {
namespace {

constexpr unsigned kDepth = 32;                  // reads in flight
constexpr size_t kPieceBytes = size_t{1} << 20;  // bytes of one of them

/// An open file; -1 when it could not be opened.
class File {
 public:
  File(const std::string& path, int flags) : descriptor_(::open(path.c_str(), flags | O_DIRECT | O_CLOEXEC, 0644)) {
    if (descriptor_ < 0 && errno == EINVAL) descriptor_ = ::open(path.c_str(), flags | O_CLOEXEC, 0644);  // e.g. tmpfs
  }
  File(File&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  File& operator=(File&&) = delete;
  ~File() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

/// Reads [offset, size of the span) with pread(); true when all of it came.
bool read_plainly(int descriptor, std::span<std::byte> into, size_t offset) {
  while (offset < into.size()) {
    const ssize_t n = ::pread(descriptor, into.data() + offset, into.size() - offset, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    offset += static_cast<size_t>(n);
  }
  return true;
}

}  // namespace

struct BlockFiles::Ring {
  io_uring ring;
};

BlockFiles::BlockFiles() : ring_(std::make_unique<Ring>()) {
  if (::io_uring_queue_init(kDepth, &ring_->ring, 0) != 0) ring_.reset();
}

BlockFiles::~BlockFiles() {
  if (ring_) ::io_uring_queue_exit(&ring_->ring);
}

void BlockFiles::read(std::span<Read> reads) {
  if (ring_) {
    read_through_ring(reads);
    return;
  }
  for (Read& read : reads) {
    const File file(read.path, O_RDONLY);
    read.done = file.descriptor() >= 0 && read_plainly(file.descriptor(), read.into, 0);
  }
}

void BlockFiles::read_through_ring(std::span<Read> reads) {
  struct Piece {
    size_t read, offset, bytes;
  };
  std::vector<File> files;
  std::vector<Piece> pieces;
  std::vector<bool> failed(reads.size());
  for (size_t i = 0; i < reads.size(); ++i) {
    files.emplace_back(reads[i].path, O_RDONLY);
    failed[i] = files[i].descriptor() < 0;
    for (size_t at = 0; !failed[i] && at < reads[i].into.size(); at += kPieceBytes) {
      pieces.push_back({i, at, std::min(kPieceBytes, reads[i].into.size() - at)});
    }
  }
  // Pieces wait in order for a free place; each that returns makes room for the next.
  size_t next = 0;
  unsigned in_flight = 0;
  while (next < pieces.size() || in_flight > 0) {
    while (next < pieces.size() && in_flight < kDepth) {
      io_uring_sqe* const entry = ::io_uring_get_sqe(&ring_->ring);
      if (entry == nullptr) break;
      const Piece& piece = pieces[next];
      ::io_uring_prep_read(entry, files[piece.read].descriptor(), reads[piece.read].into.data() + piece.offset,
                           static_cast<unsigned>(piece.bytes), piece.offset);
      ::io_uring_sqe_set_data64(entry, next++);
      ++in_flight;
    }
    ::io_uring_submit(&ring_->ring);
    io_uring_cqe* result = nullptr;
    if (::io_uring_wait_cqe(&ring_->ring, &result) != 0) continue;  // interrupted
    const Piece& piece = pieces[::io_uring_cqe_get_data64(result)];
    if (result->res != static_cast<int>(piece.bytes)) {  // short, or refused: the plain way decides
      const auto whole = reads[piece.read].into.first(piece.offset + piece.bytes);
      if (!read_plainly(files[piece.read].descriptor(), whole, piece.offset)) failed[piece.read] = true;
    }
    ::io_uring_cqe_seen(&ring_->ring, result);
    --in_flight;
  }
  for (size_t i = 0; i < reads.size(); ++i) reads[i].done = !failed[i];
}

void BlockFiles::write(const std::string& path, std::span<const std::byte> bytes) {
  const std::string temporary = fmt::format("{}.{}.tmp", path, ::getpid());
  try {
    const File file(temporary, O_WRONLY | O_CREAT | O_TRUNC);
    if (file.descriptor() < 0) fail_errno("create", temporary);
    for (size_t at = 0; at < bytes.size();) {
      const ssize_t n = ::pwrite(file.descriptor(), bytes.data() + at, bytes.size() - at, static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) fail_errno("write", temporary);
      at += static_cast<size_t>(n);
    }
    if (::rename(temporary.c_str(), path.c_str()) != 0) fail_errno("rename", path);
  } catch (const Error&) {
    ::unlink(temporary.c_str());
    throw;
  }
}

}  // namespace mneme
