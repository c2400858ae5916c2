#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "budget/buffer.h"
#include "context/block_kv.h"
#include "context/channel_map.h"
#include "context/kv_choices.h"
#include "kernels/coded_attention.h"

namespace mneme {

/// Keys and values of all but the newest tokens in sealed blocks of 64 tokens, coded in a few bits (KIVI, arXiv 2402.02750;
/// block floating point, arXiv 2403.20137) and with fewer or sorted key channels (ThinK, arXiv 2407.21018; K-sort). The
/// newest tokens stay in f16.
///
/// With N tokens and residual R, the oldest 64 * floor(max(0, N - R) / 64) are sealed: R to R + 63 tokens are in full
/// precision (R = 64: as many as KIVI with R = 128 on average, whose keys go from 0 to 127). A query sees what was sealed before its token, whether its token came alone or in a chunk. KIVI itself slides
/// the window of values token by token, seals keys R at a time and computes a prompt's attention in full precision; here keys
/// and values share one boundary, and a long prompt never exists in full precision.
///
/// Bytes of N tokens of a kv head: blocks * (keys.bytes() + values.bytes() + channel list) + (R + 64) * 2 (key_dim +
/// value_dim), blocks rounded to 4 KiB a layer. Two bits in groups of 32 take 0.19 of f16.
///
/// Not here: sliding-window layers (their ring is small already) and truncation into sealed blocks.
class CodedKv : public BlockKv {
 public:
  static StateSpec spec(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens);

  /// `choices.seals()` and no window in `shape`. Throws Error for a head size the codec does not have.
  CodedKv(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens, Ledger& ledger);
  ~CodedKv() override;

  bool needs_queries() const override { return choices_.prune > 0; }
  uint64_t bytes() const override;
  std::unique_ptr<LayerState> copy(CopyScope& scope) const override;

  /// What a sealed block decodes to, for comparisons: keys [64, key_dim] (dropped channels are 0) and values [64, value_dim].
  void decode(uint64_t block, size_t head, float* keys, float* values) const;

 private:
  struct Layout;
  static Layout layout_of(const KvShape& shape, const KvChoices& choices);

  std::byte* part(uint64_t block, size_t head);
  const std::byte* part(uint64_t block, size_t head) const;
  kernels::BlockKeys keys_of(uint64_t block, size_t head) const;
  kernels::BlockValues values_of(uint64_t block, size_t head) const;
  void attend(const KvQueries& queries, size_t first, size_t n, float* out, size_t out_stride) override;
  void seal() override;
  void save_beside_tail(StateWriter& out) const override;
  void load_beside_tail(StateReader& in) override;
  void check_channels() const;
  void choose_channels(size_t head, std::span<const float> keys, std::byte* list);

  KvChoices choices_;
  std::unique_ptr<const Layout> layout_;
  RecentQueries recent_;  ///< Only to prune.
  Buffer order_;          ///< [kv head][key_dim] channel numbers, only to sort.
};

}  // namespace mneme
