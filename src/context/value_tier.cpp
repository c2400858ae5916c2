#include "context/value_tier.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "base/checked_math.h"

namespace mneme {
namespace {

constexpr size_t kPage = KvFile::kPage;

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
    page_ = Buffer(ledger, Tag::kKv, block_bytes_, "values on their way to a file");
    file_ = std::make_unique<KvFile>(ledger, "values");
  } else {
    memory_ = GrowingBuffer(ledger, Tag::kKv, round_up<size_t>(std::max<uint64_t>(1, most_blocks) * block_bytes, kPage),
                            "values");
  }
}

uint64_t ValueTier::disk_bytes(size_t block_bytes, uint64_t n_blocks) {
  return KvFile::disk_bytes(n_blocks * stride_of(block_bytes, true));
}

void ValueTier::grow_to(uint64_t n_blocks) {
  if (file_) {
    file_->grow_to(n_blocks * block_bytes_);
  } else {
    memory_.grow_to(n_blocks * block_bytes_);
  }
}

void ValueTier::write(uint64_t block, std::span<const std::byte> bytes) {
  assert(bytes.size() <= block_bytes_);
  if (!file_) {
    std::memcpy(memory_.data() + block * block_bytes_, bytes.data(), bytes.size());
    return;
  }
  std::memcpy(page_.data(), bytes.data(), bytes.size());
  file_->write(block * block_bytes_, {page_.data(), block_bytes_});
}

ReadRequest ValueTier::request(uint64_t block, size_t begin, size_t end, std::byte* target, size_t* skip) const {
  const uint64_t from = block * block_bytes_ + begin, first = from / kPage * kPage;
  const uint64_t last = round_up<uint64_t>(block * block_bytes_ + end, kPage);
  *skip = static_cast<size_t>(from - first);
  return {first, static_cast<uint32_t>(last - first), target, descriptor()};
}

void ValueTier::read(uint64_t first, uint64_t n_blocks, std::byte* target) const {
  if (file_) {
    file_->read(first * block_bytes_, {target, n_blocks * block_bytes_});
  } else {
    std::memcpy(target, memory_.data() + first * block_bytes_, n_blocks * block_bytes_);
  }
}

}  // namespace mneme
