#include "context/page_groups.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace mneme {

PageGroups::PageGroups(const KvShape& shape, size_t channels_of_page, bool with_channel_copy)
    : n_kv_heads(shape.n_kv_heads),
      key_dim(shape.key_dim),
      value_dim(shape.value_dim),
      channels(channels_of_page),
      block_tokens(kPage / 2 / channels_of_page),
      group_tokens(block_tokens),
      channel_copy(with_channel_copy) {
  const size_t widest = std::max(key_dim, value_dim);
  if (widest > kPage / 2) {
    fail(ErrorCode::kUnsupported, "[kv policy] expected heads of at most {} channels for instinfer, found {}",
         kPage / 2, widest);
  }
  while (group_tokens * widest * 2 > kPage) group_tokens /= 2;
}

void PageGroups::encode(const std::byte* keys, const std::byte* values, std::byte* pages) const {
  std::memset(pages, 0, head_bytes());
  const size_t key_bytes = group_tokens * key_dim * 2, value_bytes = group_tokens * value_dim * 2;
  for (size_t group = 0; group < block_tokens / group_tokens; ++group) {
    std::memcpy(pages + group * 2 * kPage, keys + group * key_bytes, key_bytes);
    std::memcpy(pages + (group * 2 + 1) * kPage, values + group * value_bytes, value_bytes);
  }
  if (!channel_copy) return;
  auto* const columns =
      reinterpret_cast<uint16_t*>(pages + token_bytes());  // [channel][token]: pages follow each other
  const auto* const rows = reinterpret_cast<const uint16_t*>(keys);
  for (size_t t = 0; t < block_tokens; ++t) {
    for (size_t c = 0; c < key_dim; ++c) columns[c * block_tokens + t] = rows[t * key_dim + c];
  }
}

}  // namespace mneme
