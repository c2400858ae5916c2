#include "context/block_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "base/error.h"

namespace mneme {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;  // bytes of one read

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

}  // namespace

void BlockFiles::read(std::span<Read> reads) {
  std::vector<File> files;
  std::vector<ReadRequest> pieces;
  std::vector<size_t> read_of;  // by piece
  for (size_t i = 0; i < reads.size(); ++i) {
    files.emplace_back(reads[i].path, O_RDONLY);
    reads[i].done = files[i].descriptor() >= 0;
    for (size_t at = 0; reads[i].done && at < reads[i].into.size(); at += kPieceBytes) {
      const auto bytes = static_cast<uint32_t>(std::min(kPieceBytes, reads[i].into.size() - at));
      pieces.push_back({at, bytes, reads[i].into.data() + at, files[i].descriptor()});
      read_of.push_back(i);
    }
  }
  reader_.start(pieces);
  reader_.finish([&](size_t piece, int error) { reads[read_of[piece]].done &= error == 0; });
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
