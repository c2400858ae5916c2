#pragma once

#include <cstddef>
#include <cstdint>

#include "context/kv_layer.h"

namespace mneme {

/// Where keys and values lie in a file of pages of 4 KiB, for reads of a few tokens or a few channels (the "KV-oriented
/// FTL" of InstInfer, arXiv 2409.04992). Elements are f16.
///
/// A block has G = 2048 / m consecutive tokens; of each kv head it holds, one after the other,
///   token groups    G / u pairs of pages: keys [u, key_dim] of u tokens, then their values [u, value_dim]
///   channel pages   key_dim / m pages: keys [m channels, G tokens]; only with `channel_copy`
/// u is the largest power of two whose keys fill no more than a page, nor its values. What does not fill a page is
/// padding. With heads of 128 and m = 8: G = 256, u = 16, and a token takes 6 * 128 bytes a head, half of them more
/// than without the second copy of the keys.
struct PageGroups {
  static constexpr size_t kPage = 4096;

  size_t n_kv_heads, key_dim, value_dim;
  size_t channels;      ///< m: of a channel page.
  size_t block_tokens;  ///< G.
  size_t group_tokens;  ///< u.
  bool channel_copy;

  /// `channels` divides 2048. Throws Error(kUnsupported) for heads above 2048 channels.
  PageGroups(const KvShape& shape, size_t channels, bool channel_copy);

  size_t token_bytes() const { return block_tokens / group_tokens * 2 * kPage; }
  size_t n_channel_pages() const { return channel_copy ? (key_dim + channels - 1) / channels : 0; }
  size_t head_bytes() const { return token_bytes() + n_channel_pages() * kPage; }
  uint64_t block_bytes() const { return uint64_t{n_kv_heads} * head_bytes(); }

  /// Offsets in the file.
  uint64_t head_at(uint64_t block, size_t head) const { return block * block_bytes() + head * head_bytes(); }
  uint64_t group_at(uint64_t block, size_t head, size_t group) const {
    return head_at(block, head) + group * 2 * kPage;
  }
  uint64_t channel_page_at(uint64_t block, size_t head, size_t page) const {
    return head_at(block, head) + token_bytes() + page * kPage;
  }

  /// Rows of token i of a run of token groups that begins at `pages`.
  const std::byte* key(const std::byte* pages, size_t i) const {
    return pages + i / group_tokens * 2 * kPage + i % group_tokens * key_dim * 2;
  }
  const std::byte* value(const std::byte* pages, size_t i) const {
    return pages + (i / group_tokens * 2 + 1) * kPage + i % group_tokens * value_dim * 2;
  }

  /// Fills head_bytes() from keys [G, key_dim] and values [G, value_dim].
  void encode(const std::byte* keys, const std::byte* values, std::byte* pages) const;
};

}  // namespace mneme
