#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "budget/mapped_range.h"
#include "context/kv_layer.h"
#include "context/open_tail.h"
#include "tensor/dtype.h"

namespace mneme {

/// Writes n values as f16, bf16 or f32.
void store_row(DType dtype, const float* x, size_t n, std::byte* out);

/// The plain store: every token's rotated key and value as f32, f16 or bf16.
///
/// Layout of K and of V: [slot][kv head][kBlockTokens][dim], so that the keys of one head are contiguous in runs of
/// kBlockTokens. Block b of the sequence lies in slot b modulo the number of slots; a layer with a sliding window has only
/// the slots that the window and one batch need, and old blocks are overwritten. Slots become resident when first used and
/// never move.
///
/// A block of all heads is a unit of pages (budget/page_pool.h). Layers without a window share full blocks: copies of a
/// sequence, and sequences that begin with the same cached pages, have them in the same memory, and only the block that
/// is begun is their own. A block becomes private again before anything can be written into it, when the sequence is cut
/// inside it: so appending needs no memory beyond what spec() says. Rings overwrite their blocks and copy instead.
///
/// With `sinks`, a window keeps the first tokens of the sequence visible beside the last ones (attention sinks, arXiv
/// 2309.17453; the two windows of JanusVLN, arXiv 2509.22548). Their positions stay what they were.
class DenseKv : public KvLayer {
 public:
  static constexpr uint32_t kBlockTokens = 256;

  static StateSpec spec(const KvShape& shape, DType dtype, uint64_t max_tokens, uint32_t max_batch,
                        uint32_t sinks = 0);

  DenseKv(const KvShape& shape, DType dtype, uint64_t max_tokens, uint32_t max_batch, Ledger& ledger,
          uint32_t sinks = 0);

  void reserve(size_t n_tokens) override;
  void extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) override;

  uint64_t bytes() const override { return keys_.committed() + values_.committed() + (sinks_ ? sinks_->bytes() : 0); }
  int64_t n_tokens() const override { return n_tokens_; }
  bool truncate(int64_t n_tokens) override;
  std::unique_ptr<LayerState> copy(CopyScope& scope) const override;

  /// A page is one block: keys [kv head][kBlockTokens][dim], then values. The rest: the number of tokens (i64), then
  /// the rows of the block begun, keys [kv head][row][dim] and values.
  PageRange sealed_pages() const override;
  void save_page(int64_t page, StateWriter& out) const override;
  bool save_rest(int64_t n_tokens, StateWriter& out) const override;
  bool shares_pages() const override { return shape_.window == 0; }
  SharedPage share_page(int64_t page) const override;
  int64_t first_page(int64_t n_tokens) const override;
  void load_page(int64_t page, StateReader& in) override;
  void load_shared_page(int64_t page, const SharedPage& shared) override;
  void load_rest(StateReader& in) override;

 private:
  void grow_for(int64_t n_tokens);
  void check_next_page(int64_t page) const;
  void advance_to(int64_t n_tokens);
  int64_t oldest_needed(int64_t n_tokens) const;
  void append(const KvRows& rows);
  void attend(const KvQueries& queries, size_t n_query_tokens, float* out, size_t out_stride) const;
  size_t slot_of(int64_t block) const { return static_cast<size_t>(block % n_slots_); }
  const std::byte* key_run(int64_t block, size_t head) const;
  const std::byte* value_run(int64_t block, size_t head) const;

  KvShape shape_;
  DType dtype_;
  Ledger& ledger_;
  uint64_t max_tokens_;
  uint32_t max_batch_;
  int64_t n_slots_;
  size_t key_head_bytes_, value_head_bytes_;    ///< One head of one slot.
  size_t key_block_bytes_, value_block_bytes_;  ///< One slot, rounded to pages.
  MappedRange keys_, values_;
  uint32_t n_sinks_;
  std::optional<OpenTail> sinks_;  ///< The first n_sinks_ tokens, f16.
  int64_t n_tokens_ = 0;
  int64_t oldest_ = 0;  ///< First position whose block is still held.
};

}  // namespace mneme
