#include "context/kv_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/unnamed_file.h"

namespace mneme {
namespace {

constexpr uint64_t kStepBytes = uint64_t{4} << 20;

std::string folder_of_files() {
  for (const char* name : {"MNEME_KV_FOLDER", "TMPDIR"}) {
    const char* const folder = std::getenv(name);
    if (folder != nullptr && *folder != '\0') return folder;
  }
  return "/var/tmp";
}

}  // namespace

KvFile::KvFile(Ledger& ledger, const char* what)
    : what_(what), disk_(ledger.reserve(Tag::kKv, 0, what, Tier::kDisk)), file_(open_unnamed(folder_of_files())) {}

KvFile::~KvFile() {
  ::close(file_);
}

uint64_t KvFile::disk_bytes(uint64_t bytes) {
  return round_up(bytes, kStepBytes);
}

void KvFile::grow_to(uint64_t bytes) {
  const uint64_t before = disk_.bytes(), after = disk_bytes(bytes);
  if (after <= before) return;
  disk_.resize(after);
  const int error = ::posix_fallocate(file_, static_cast<off_t>(before), static_cast<off_t>(after - before));
  if (error != 0) {
    disk_.resize(before);
    fail(ErrorCode::kIo, "[keep {}] expected room for {} bytes in a file in {}, found: {}", what_, after,
         folder_of_files(), std::strerror(error));
  }
}

void KvFile::write(uint64_t offset, std::span<const std::byte> pages) {
  for (size_t at = 0; at < pages.size();) {
    const ssize_t n = ::pwrite(file_, pages.data() + at, pages.size() - at, static_cast<off_t>(offset + at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_errno("write", what_);
    at += static_cast<size_t>(n);
  }
}

void KvFile::read(uint64_t offset, std::span<std::byte> pages) const {
  for (size_t at = 0; at < pages.size();) {
    const ssize_t n = ::pread(file_, pages.data() + at, pages.size() - at, static_cast<off_t>(offset + at));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno("read", what_);
    if (n == 0) {
      fail(ErrorCode::kIo, "[read {}] expected {} bytes at {}, found the end", what_, pages.size() - at, offset + at);
    }
    at += static_cast<size_t>(n);
  }
}

AlignedBytes::AlignedBytes(size_t bytes)
    : data_(static_cast<std::byte*>(std::aligned_alloc(KvFile::kPage, round_up<size_t>(bytes, KvFile::kPage)))) {
  if (data_ == nullptr) fail(ErrorCode::kOutOfBudget, "[keep values] expected {} bytes of memory, found less", bytes);
}

}  // namespace mneme
