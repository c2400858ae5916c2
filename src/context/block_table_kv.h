#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "budget/buffer.h"
#include "context/kv_layer.h"
#include "tensor/dtype.h"

namespace mneme {

/// Memory for the blocks of many sequences of one layer, handed out one by one in no order: what PagedAttention (arXiv
/// 2309.06180) has instead of contiguous addresses. A block is K [kv head][block_tokens][key_dim], then V
/// [kv head][block_tokens][value_dim]. All of it is taken from the ledger at the start.
class BlockArena {
 public:
  /// `block_tokens`: 16, 32, or a multiple of 64. `seed` mixes the order in which blocks are handed out. Throws Error.
  BlockArena(const KvShape& shape, DType dtype, uint32_t block_tokens, uint64_t max_tokens, Ledger& ledger,
             uint64_t seed = 1);

  /// Throws Error(kOutOfBudget) when there is none left.
  uint32_t take();
  void give_back(uint32_t block);

  const KvShape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  uint32_t block_tokens() const { return block_tokens_; }
  size_t block_bytes() const { return block_bytes_; }
  std::byte* keys(uint32_t block, size_t head) { return memory_.data() + block * block_bytes_ + head * key_bytes_; }
  std::byte* values(uint32_t block, size_t head) {
    return memory_.data() + block * block_bytes_ + shape_.n_kv_heads * key_bytes_ + head * value_bytes_;
  }

 private:
  KvShape shape_;
  DType dtype_;
  uint32_t block_tokens_;
  size_t key_bytes_, value_bytes_, block_bytes_;  ///< Of one head; of a block.
  Buffer memory_;
  std::mutex mutex_;
  std::vector<uint32_t> free_;
};

/// Plain keys and values behind a block table: the baseline that DenseKv's contiguous addresses are measured against,
/// with the same kernels and the same order of summation, so that results are equal to the bit. Kernels work on tiles
/// of 64 keys; smaller blocks are gathered into a tile first, as a kernel with a block table does when it loads one.
///
/// Not for use in answers: no window, no saving, no copies. `mneme bench attention` runs it.
class BlockTableKv : public KvLayer {
 public:
  BlockTableKv(std::shared_ptr<BlockArena> arena, uint64_t max_tokens);
  BlockTableKv(const BlockTableKv&) = delete;
  BlockTableKv& operator=(const BlockTableKv&) = delete;
  ~BlockTableKv() override;

  void reserve(size_t n_tokens) override;
  void extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) override;
  uint64_t bytes() const override { return table_.size() * arena_->block_bytes(); }
  int64_t n_tokens() const override { return n_tokens_; }
  bool truncate(int64_t n_tokens) override;
  /// Throws Error(kUnsupported).
  std::unique_ptr<LayerState> copy(CopyScope& scope) const override;
  bool save_rest(int64_t, StateWriter&) const override { return false; }
  void load_rest(StateReader& in) override;

 private:
  void append(const KvRows& rows);

  std::shared_ptr<BlockArena> arena_;
  uint64_t max_tokens_;
  std::vector<uint32_t> table_;  ///< Block of the tokens [i * block_tokens, (i + 1) * block_tokens).
  int64_t n_tokens_ = 0;
};

}  // namespace mneme
