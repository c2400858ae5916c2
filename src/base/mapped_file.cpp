#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <utility>

#include "base/error.h"

namespace mneme {

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail_errno("open", path);
  struct stat info {};
  if (::fstat(file, &info) != 0) {
    const int reason = errno;
    ::close(file);
    errno = reason;
    fail_errno("stat", path);
  }
  if (!S_ISREG(info.st_mode)) {
    ::close(file);
    fail(ErrorCode::kInvalidArgument, "[open] {}: expected a regular file", path);
  }
  size_ = static_cast<size_t>(info.st_size);
  if (size_ > 0) {
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file, 0);
    if (address == MAP_FAILED) {
      const int reason = errno;
      ::close(file);
      errno = reason;
      fail_errno("map", path);
    }
    data_ = static_cast<const std::byte*>(address);
  }
  ::close(file);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

namespace {

/// Widens a byte range to page borders and hands it to madvise.
void advise(const std::byte* data, [[maybe_unused]] size_t size, size_t offset, size_t length, int advice) {
  assert(offset <= size && length <= size - offset);
  if (data == nullptr || length == 0) return;
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t begin = offset / page * page;
  ::madvise(const_cast<std::byte*>(data) + begin, offset + length - begin, advice);
}

}  // namespace

void MappedFile::will_need(size_t offset, size_t length) const {
  advise(data_, size_, offset, length, MADV_WILLNEED);
}

void MappedFile::release(size_t offset, size_t length) const {
  advise(data_, size_, offset, length, MADV_DONTNEED);
}

}  // namespace mneme
