#include "recall/index/posting_list.h"

#include <xxhash.h>

#include <cstring>

#include "base/checked_math.h"
#include "base/error.h"

namespace mneme::ann {
namespace {

constexpr uint32_t kMagic = 0x54534C4Du;  // "MLST"

struct PostingHead {
  uint32_t magic, name, count, element_bytes;
  uint64_t reserved, checksum;  ///< Of the 24 bytes before and everything behind.
};
static_assert(sizeof(PostingHead) == 32);

uint64_t checksum_of(std::span<const std::byte> pages) {
  return XXH3_64bits_withSeed(pages.data() + sizeof(PostingHead), pages.size() - sizeof(PostingHead),
                              XXH3_64bits(pages.data(), 24));
}

}  // namespace

uint64_t posting_pages(uint64_t count, size_t element_bytes) {
  return div_up<uint64_t>(sizeof(PostingHead) + count * (4 + element_bytes), kPageBytes);
}

void encode_posting(uint32_t name, const PostingView& list, std::span<std::byte> pages) {
  const uint32_t count = static_cast<uint32_t>(list.slots.size());
  const size_t element_bytes = count == 0 ? 0 : list.elements.size() / count;
  PostingHead start{kMagic, name, count, static_cast<uint32_t>(element_bytes), 0, 0};
  std::memset(pages.data(), 0, pages.size());
  std::memcpy(pages.data(), &start, sizeof start);
  std::byte* out = pages.data() + sizeof start;
  if (count > 0) {
    std::memcpy(out, list.slots.data(), list.slots.size_bytes());
    std::memcpy(out + list.slots.size_bytes(), list.elements.data(), list.elements.size());
  }
  start.checksum = checksum_of(pages);
  std::memcpy(pages.data(), &start, sizeof start);
}

PostingView parse_posting(std::span<const std::byte> pages, uint32_t name, uint32_t count, size_t element_bytes) {
  PostingHead start{};
  if (pages.size() >= sizeof start) std::memcpy(&start, pages.data(), sizeof start);
  if (start.magic != kMagic || start.name != name || start.count != count || start.element_bytes != element_bytes) {
    fail(ErrorCode::kCorruptData, "[read list] expected {} vectors of {} bytes of list {}, found {} of {} of list {}",
         count, element_bytes, name, start.count, start.element_bytes, start.name);
  }
  if (sizeof start + uint64_t{count} * (4 + element_bytes) > pages.size()) {
    fail(ErrorCode::kCorruptData, "[read list] expected {} vectors of list {} in {} bytes, found more", count, name,
         pages.size());
  }
  if (start.checksum != checksum_of(pages)) {
    fail(ErrorCode::kCorruptData, "[read list] expected the checksum of list {}, found damage", name);
  }
  const std::byte* data = pages.data() + sizeof start;
  return {{reinterpret_cast<const uint32_t*>(data), count}, {data + 4 * size_t{count}, count * element_bytes}};
}

}  // namespace mneme::ann
