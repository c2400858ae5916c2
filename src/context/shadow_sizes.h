#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "base/checked_math.h"
#include "context/shadow_kv.h"

namespace mneme {

/// Bytes and counts of a ShadowKv as functions of its sealed blocks.
struct ShadowKv::Sizes {
  /// Slots for so many budgets: what the last queries chose is often wanted again.
  static constexpr uint64_t kSlotsOfBudget = 2;

  KvShape shape;
  KvChoices::Shadow choices;
  FeatureMap map;
  SealRhythm rhythm;
  uint64_t fit_blocks;
  size_t tail_tokens, pair_bytes, value_bytes;  ///< Of the tail; of one chunk and head; of one block.

  Sizes(const KvShape& s, const KvChoices& all, uint64_t max_tokens)
      : shape(s),
        choices(*all.shadow),
        map{size_t{s.n_kv_heads} * s.key_dim, std::min<size_t>(all.shadow->rank, size_t{s.n_kv_heads} * s.key_dim)},
        rhythm(rhythm_of(all)),
        fit_blocks(rhythm.unpaged_blocks),
        tail_tokens(rhythm.tail_tokens(max_tokens)),
        pair_bytes(kChunk * (size_t{s.key_dim} + s.value_dim) * 2),
        value_bytes(kBlock * s.n_kv_heads * s.value_dim * 2) {}

  uint64_t sealed(uint64_t tokens) const { return rhythm.sealed(tokens); }
  /// Chunks that a generated token may choose a head, all that there are at most.
  uint64_t budget(uint64_t blocks) const { return std::min(blocks * kBlockChunks, wish(blocks)); }
  /// Chunks a head that are kept rebuilt.
  uint64_t slots(uint64_t blocks) const { return std::min(blocks * kBlockChunks, kSlotsOfBudget * wish(blocks)); }
  /// Chunks a head that stay exact.
  uint64_t outliers(uint64_t blocks) const {
    constexpr uint64_t kUnit = 1024 / kChunk;
    return std::min(blocks * kBlockChunks, div_up(wish(blocks) * choices.outliers, kUnit));
  }
  /// Exact keys until the basis is there; then basis and features, in no less memory than was held already.
  uint64_t keys(uint64_t blocks) const {
    const uint64_t exact = std::min(blocks, fit_blocks) * kBlock * map.channels * 2;
    return blocks < fit_blocks ? exact : std::max(exact, map.basis_bytes() + blocks * kBlock * map.row_bytes());
  }
  uint64_t pairs(uint64_t chunks) const { return chunks * shape.n_kv_heads * pair_bytes; }
  uint64_t total(uint64_t blocks) const {
    const auto pages = [](uint64_t bytes) { return round_up<uint64_t>(bytes, GrowingBuffer::kStepBytes); };
    return OpenTail::reserved_bytes(shape, tail_tokens) + pages(keys(blocks)) +
           Landmarks::reserved_bytes(shape, blocks * kBlockChunks) +
           ValueTier::memory_bytes(value_bytes, blocks, choices.on_disk) + pages(pairs(outliers(blocks))) +
           pages(pairs(slots(blocks)));
  }

  uint64_t panel_key_bytes(uint64_t blocks) const { return blocks * kBlock * map.channels * 2; }
  /// Working memory of a call: a panel of blocks, or a batch of reads.
  uint64_t work(uint64_t panel_blocks, size_t reads) const {
    const uint64_t keys = panel_key_bytes(panel_blocks);
    if (!choices.on_disk) return Buffer::reserved_bytes(keys);
    const uint64_t values = panel_blocks * round_up<uint64_t>(value_bytes, 4096);
    const uint64_t batch = reads * ValueTier::most_request_bytes(kChunk * shape.value_dim * 2);
    return Buffer::reserved_bytes(std::max(round_up<uint64_t>(keys, 4096) + values, batch));
  }
  uint64_t fit_work() const {
    return SecondMoments::working_bytes(map) + map.basis_bytes() + fit_blocks * kBlock * map.row_bytes();
  }

 private:
  uint64_t wish(uint64_t blocks) const {
    if (choices.share == 0) return div_up<uint64_t>(choices.tokens, kChunk);
    constexpr double kLeast = 256.0 / kChunk;
    const double chunks = static_cast<double>(choices.share) * static_cast<double>(blocks * kBlockChunks);
    return static_cast<uint64_t>(std::max(kLeast, std::ceil(chunks - 1e-6)));
  }
};

}  // namespace mneme
