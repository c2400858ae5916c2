#include "context/value_tier.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/unnamed_file.h"

namespace mneme {
namespace {

constexpr size_t kPage = 4096;
/// The file grows in steps, so that the system is not asked for every block.
constexpr uint64_t kStepBytes = uint64_t{4} << 20;

std::string folder_of_files() {
  for (const char* name : {"MNEME_KV_FOLDER", "TMPDIR"}) {
    const char* const folder = std::getenv(name);
    if (folder != nullptr && *folder != '\0') return folder;
  }
  return "/var/tmp";
}

size_t stride_of(size_t block_bytes, bool on_disk) {
  return on_disk ? round_up(block_bytes, kPage) : block_bytes;
}

}  // namespace

uint64_t ValueTier::memory_bytes(size_t block_bytes, uint64_t n_blocks, bool on_disk) {
  return on_disk ? Buffer::reserved_bytes(stride_of(block_bytes, true))
                 : round_up<uint64_t>(n_blocks * block_bytes, GrowingBuffer::kStepBytes);
}

ValueTier::ValueTier(size_t block_bytes, uint64_t most_blocks, bool on_disk, Ledger& ledger)
    : block_bytes_(stride_of(block_bytes, on_disk)) {
  if (on_disk) {
    disk_ = ledger.reserve(Tag::kKv, 0, "values in a file", Tier::kDisk);
    page_ = Buffer(ledger, Tag::kKv, block_bytes_, "values on their way to a file");
    file_ = open_unnamed(folder_of_files());
  } else {
    memory_ = GrowingBuffer(ledger, Tag::kKv, round_up<size_t>(std::max<uint64_t>(1, most_blocks) * block_bytes, kPage),
                            "values");
  }
}

ValueTier::~ValueTier() {
  if (file_ >= 0) ::close(file_);
}

void ValueTier::grow_to(uint64_t n_blocks) {
  if (file_ < 0) {
    memory_.grow_to(n_blocks * block_bytes_);
    return;
  }
  const uint64_t before = disk_.bytes(), after = round_up(n_blocks * block_bytes_, kStepBytes);
  if (after <= before) return;
  disk_.resize(after);
  const int error = ::posix_fallocate(file_, static_cast<off_t>(before), static_cast<off_t>(after - before));
  if (error != 0) {
    disk_.resize(before);
    fail(ErrorCode::kIo, "[keep values] expected room for {} bytes in a file in {}, found: {}", after,
         folder_of_files(), std::strerror(error));
  }
}

void ValueTier::write(uint64_t block, std::span<const std::byte> bytes) {
  assert(bytes.size() <= block_bytes_);
  if (file_ < 0) {
    std::memcpy(memory_.data() + block * block_bytes_, bytes.data(), bytes.size());
    return;
  }
  std::memcpy(page_.data(), bytes.data(), bytes.size());
  for (size_t at = 0; at < block_bytes_;) {
    const ssize_t n =
        ::pwrite(file_, page_.data() + at, block_bytes_ - at, static_cast<off_t>(block * block_bytes_ + at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_errno("write", "values in a file");
    at += static_cast<size_t>(n);
  }
}

ReadRequest ValueTier::request(uint64_t block, size_t begin, size_t end, std::byte* target, size_t* skip) const {
  const uint64_t from = block * block_bytes_ + begin, first = from / kPage * kPage;
  const uint64_t last = round_up<uint64_t>(block * block_bytes_ + end, kPage);
  *skip = static_cast<size_t>(from - first);
  return {first, static_cast<uint32_t>(last - first), target, file_};
}

void ValueTier::read(uint64_t first, uint64_t n_blocks, std::byte* target) const {
  if (file_ < 0) {
    std::memcpy(target, memory_.data() + first * block_bytes_, n_blocks * block_bytes_);
    return;
  }
  const uint64_t bytes = n_blocks * block_bytes_;
  for (uint64_t at = 0; at < bytes;) {
    const ssize_t n = ::pread(file_, target + at, bytes - at, static_cast<off_t>(first * block_bytes_ + at));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno("read", "values in a file");
    if (n == 0) {
      fail(ErrorCode::kIo, "[read values] expected {} bytes at {} of their file, found its end", bytes - at,
           first * block_bytes_ + at);
    }
    at += static_cast<uint64_t>(n);
  }
}

}  // namespace mneme
