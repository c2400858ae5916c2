#include "budget/buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <utility>

#include "base/checked_math.h"
#include "base/error.h"

namespace mneme {
namespace {

constexpr size_t kPageBytes = 4096;
constexpr size_t kHugePageBytes = size_t{2} << 20;

/// Huge pages only where rounding to them costs under 1/16; the ledger counts what is really taken.
bool wants_huge_pages(size_t bytes) {
  return bytes >= 16 * kHugePageBytes;
}

std::byte* map_pages(size_t bytes, int protection, const char* operation) {
  void* address = ::mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) fail_errno(operation, "anonymous memory");
  return static_cast<std::byte*>(address);
}

}  // namespace

size_t Buffer::reserved_bytes(size_t bytes) {
  return round_up(bytes, wants_huge_pages(bytes) ? kHugePageBytes : kPageBytes);
}

Buffer::Buffer(Ledger& ledger, Tag tag, size_t bytes, std::string what) {
  if (bytes == 0) return;
  const bool huge = wants_huge_pages(bytes);
  const size_t rounded = reserved_bytes(bytes);
  reservation_ = ledger.reserve(tag, rounded, std::move(what));
  if (huge) {
    // Map one huge page more and trim, so that the start is aligned.
    std::byte* raw = map_pages(rounded + kHugePageBytes, PROT_READ | PROT_WRITE, "allocate");
    const size_t skip = round_up(reinterpret_cast<size_t>(raw), kHugePageBytes) - reinterpret_cast<size_t>(raw);
    if (skip > 0) ::munmap(raw, skip);
    if (skip < kHugePageBytes) ::munmap(raw + skip + rounded, kHugePageBytes - skip);
    data_ = raw + skip;
    ::madvise(data_, rounded, MADV_HUGEPAGE);
  } else {
    data_ = map_pages(rounded, PROT_READ | PROT_WRITE, "allocate");
  }
  size_ = bytes;
  mapped_ = rounded;
}

Buffer::Buffer(Buffer&& other) noexcept {
  *this = std::move(other);
}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this == &other) return *this;
  free();
  reservation_ = std::move(other.reservation_);
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  mapped_ = std::exchange(other.mapped_, 0);
  return *this;
}

Buffer::~Buffer() {
  free();
}

void Buffer::free() {
  if (data_ != nullptr) ::munmap(data_, mapped_);
  data_ = nullptr;
  size_ = mapped_ = 0;
  reservation_.release();
}

GrowingBuffer::GrowingBuffer(Ledger& ledger, Tag tag, size_t capacity, std::string what) {
  capacity_ = round_up(std::max<size_t>(1, capacity), kStepBytes);
  reservation_ = ledger.reserve(tag, 0, std::move(what));
  data_ = map_pages(capacity_, PROT_NONE, "reserve addresses");
}

GrowingBuffer::GrowingBuffer(GrowingBuffer&& other) noexcept {
  *this = std::move(other);
}

GrowingBuffer& GrowingBuffer::operator=(GrowingBuffer&& other) noexcept {
  if (this == &other) return *this;
  free();
  reservation_ = std::move(other.reservation_);
  data_ = std::exchange(other.data_, nullptr);
  capacity_ = std::exchange(other.capacity_, 0);
  committed_ = std::exchange(other.committed_, 0);
  return *this;
}

GrowingBuffer::~GrowingBuffer() {
  free();
}

void GrowingBuffer::free() {
  if (data_ != nullptr) ::munmap(data_, capacity_);
  data_ = nullptr;
  capacity_ = committed_ = 0;
  reservation_.release();
}

void GrowingBuffer::grow_to(size_t bytes) {
  if (bytes <= committed_) return;
  if (bytes > capacity_) {
    fail(ErrorCode::kContextOverflow, "[grow] expected at most {} bytes, asked for {}", capacity_, bytes);
  }
  const size_t target = round_up(bytes, kStepBytes);
  reservation_.resize(target);
  if (::mprotect(data_ + committed_, target - committed_, PROT_READ | PROT_WRITE) != 0) {
    reservation_.resize(committed_);
    fail_errno("grow", "anonymous memory");
  }
  committed_ = target;
}

void GrowingBuffer::shrink_to(size_t bytes) {
  const size_t target = round_up(bytes, kStepBytes);
  if (target >= committed_) return;
  ::madvise(data_ + target, committed_ - target, MADV_DONTNEED);
  ::mprotect(data_ + target, committed_ - target, PROT_NONE);
  committed_ = target;
  reservation_.resize(target);
}

}  // namespace mneme
