#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace mneme::ann {

inline constexpr size_t kPageBytes = 4096;

/// A list as it lies on disk: whole pages; 32 bytes of header with a checksum over all that follows, slots (u32 each),
/// elements in the index's value type, zeros up to the end of the page.
struct PostingView {
  std::span<const uint32_t> slots;
  std::span<const std::byte> elements;  ///< [slots.size(), element bytes]
};

/// Pages of a list of `count` elements.
uint64_t posting_pages(uint64_t count, size_t element_bytes);

/// Writes a list into pages [posting_pages() * kPageBytes], at an address that is a multiple of 8.
void encode_posting(uint32_t name, const PostingView& list, std::span<std::byte> pages);

/// Checks and opens the pages of list `name` of `count` elements, at an address that is a multiple of 4. Throws
/// Error(kCorruptData) that names the list.
PostingView parse_posting(std::span<const std::byte> pages, uint32_t name, uint32_t count, size_t element_bytes);

/// A list in memory, to be changed.
struct Posting {
  std::vector<uint32_t> slots;
  std::vector<std::byte> elements;

  size_t size() const { return slots.size(); }
  PostingView view() const { return {slots, elements}; }
  void add(uint32_t slot, const std::byte* element, size_t element_bytes) {
    slots.push_back(slot);
    elements.insert(elements.end(), element, element + element_bytes);
  }
};

}  // namespace mneme::ann
