#include "recall/index/durable_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"

namespace mneme::ann {

DurableFile::DurableFile(const std::string& path) : path_(path) {
  file_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file_ < 0) fail_errno("open", path);
}

DurableFile::~DurableFile() {
  if (file_ >= 0) ::close(file_);
}

void DurableFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = write_some(offset, bytes);
    if (done < 0) {
      if (errno == EINTR) continue;
      fail_errno("write", path_);
    }
    offset += static_cast<uint64_t>(done);
    bytes = bytes.subspan(static_cast<size_t>(done));
  }
}

void DurableFile::sync() {
  if (sync_now() != 0) fail_errno("sync", path_);
}

void DurableFile::truncate(uint64_t bytes) {
  if (truncate_now(bytes) != 0) fail_errno("truncate", path_);
}

uint64_t DurableFile::size() const {
  struct stat status {};
  if (::fstat(file_, &status) != 0) fail_errno("size of", path_);
  return static_cast<uint64_t>(status.st_size);
}

ssize_t DurableFile::write_some(uint64_t offset, std::span<const std::byte> bytes) {
  return ::pwrite(file_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
}

int DurableFile::sync_now() {
  return ::fdatasync(file_);
}

int DurableFile::truncate_now(uint64_t bytes) {
  return ::ftruncate(file_, static_cast<off_t>(bytes));
}

void sync_folder(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) fail_errno("open", path);
  const int rc = ::fsync(file);
  ::close(file);
  if (rc != 0) fail_errno("sync", path);
}

}  // namespace mneme::ann
