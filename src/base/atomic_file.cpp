#include "base/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "base/error.h"
#include "base/mapped_file.h"

namespace mneme {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;

void write_all(int file, const char* data, size_t size, const std::string& path) {
  while (size > 0) {
    const ssize_t done = ::write(file, data, size);
    if (done < 0) {
      if (errno == EINTR) continue;
      fail_errno("write", path);
    }
    data += done;
    size -= static_cast<size_t>(done);
  }
}

void sync_folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  const int file = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) return;
  ::fsync(file);
  ::close(file);
}

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  temporary_ = fmt::format("{}.{}.tmp", path_, ::getpid());
  file_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file_ < 0) fail_errno("create", temporary_);
}

AtomicFile::~AtomicFile() {
  if (file_ >= 0) {
    ::close(file_);
    ::unlink(temporary_.c_str());
  }
}

void AtomicFile::write(std::string_view text) {
  offset_ += text.size();
  if (text.size() >= kBufferBytes) {
    flush();
    write_all(file_, text.data(), text.size(), temporary_);
    return;
  }
  pending_.append(text);
  if (pending_.size() >= kBufferBytes) flush();
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  write(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

void AtomicFile::flush() {
  write_all(file_, pending_.data(), pending_.size(), temporary_);
  pending_.clear();
}

void AtomicFile::commit() {
  flush();
  if (::fsync(file_) != 0) fail_errno("sync", temporary_);
  const int file = std::exchange(file_, -1);
  if (::close(file) != 0) {
    const int reason = errno;
    ::unlink(temporary_.c_str());
    errno = reason;
    fail_errno("close", temporary_);
  }
  try {
    rename_durably(temporary_, path_);
  } catch (...) {
    ::unlink(temporary_.c_str());
    throw;
  }
}

void rename_durably(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail_errno("rename", to);
  sync_folder_of(to);
}

std::string read_text_file(const std::string& path, uint64_t max_bytes) {
  const MappedFile file(path);
  if (file.size() > max_bytes) {
    fail(ErrorCode::kInvalidArgument, "[read] {}: expected at most {} bytes, found {}", path, max_bytes, file.size());
  }
  const auto bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace mneme
