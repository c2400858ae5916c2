#pragma once

#include <cstdint>
#include <memory>

#include "budget/buffer.h"
#include "context/kv_layer.h"
#include "tensor/dtype.h"

namespace mneme {

/// The plain store: every token's rotated key and value as f32, f16 or bf16.
///
/// Layout of K and of V: [slot][kv head][kBlockTokens][dim], so that the keys of one head are contiguous in runs of
/// kBlockTokens. Block b of the sequence lies in slot b modulo the number of slots; a layer with a sliding window has only
/// the slots that the window and one batch need, and old blocks are overwritten. Slots become resident when first used and
/// never move.
class DenseKv : public KvLayer {
 public:
  static constexpr uint32_t kBlockTokens = 256;

  static StateSpec spec(const KvShape& shape, DType dtype, uint64_t max_tokens, uint32_t max_batch);

  DenseKv(const KvShape& shape, DType dtype, uint64_t max_tokens, uint32_t max_batch, Ledger& ledger);

  void append(const KvRows& rows) override;
  void attend(const KvQueries& queries, float* out, size_t out_stride) const override;

  uint64_t bytes() const override { return keys_.committed() + values_.committed(); }
  int64_t n_tokens() const override { return n_tokens_; }
  bool truncate(int64_t n_tokens) override;
  std::unique_ptr<LayerState> deep_copy() const override;

 private:
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
  GrowingBuffer keys_, values_;
  int64_t n_tokens_ = 0;
  int64_t oldest_ = 0;  ///< First position whose block is still held.
};

}  // namespace mneme
