#pragma once

#include "budget/buffer.h"
#include "context/tail_kv.h"

namespace mneme {

/// A TailKv whose blocks are runs of memory of equal size, and whose queries see all of them and the tail.
class BlockKv : public TailKv {
 public:
  void extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) override;
  uint64_t bytes() const override { return tail_.bytes() + blocks_.committed(); }

 protected:
  /// bytes() by tokens, with `more` for what the store keeps besides.
  static StateSpec spec_of(const KvShape& shape, const SealRhythm& rhythm, size_t block_bytes, uint64_t max_tokens,
                           uint64_t more = 0);
  /// `what` names the blocks in the ledger.
  BlockKv(const KvShape& shape, const SealRhythm& rhythm, size_t block_bytes, uint64_t max_tokens, Ledger& ledger,
          const char* what);

  std::byte* at(uint64_t block) { return blocks_.data() + block * block_bytes_; }
  const std::byte* at(uint64_t block) const { return blocks_.data() + block * block_bytes_; }
  void copy_blocks_to(BlockKv& copy) const;

  /// Attention of rows [first, first + n) of `queries`, the newest n tokens; `out` is where the first goes.
  virtual void attend(const KvQueries& queries, size_t first, size_t n, float* out, size_t out_stride) = 0;

  void make_room(uint64_t n_blocks) override { blocks_.grow_to(n_blocks * block_bytes_); }
  void save_blocks(uint64_t first, uint64_t n, StateWriter& out) const override {
    out.write({at(first), n * block_bytes_});
  }
  void load_blocks(uint64_t first, uint64_t n, StateReader& in) override { in.copy_to(at(first), n * block_bytes_); }

 private:
  size_t block_bytes_;
  GrowingBuffer blocks_;
};

}  // namespace mneme
