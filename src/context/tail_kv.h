#pragma once

#include <algorithm>
#include <cstdint>

#include "context/kv_layer.h"
#include "context/open_tail.h"

namespace mneme {

/// When tokens leave the tail: with N tokens the oldest B * floor(max(0, N - R) / B) are sealed, so that R to R + B - 1
/// tokens are in full precision. Positions alone decide.
struct SealRhythm {
  uint32_t residual;            ///< R.
  size_t block_tokens = 64;     ///< B, which divides kPageTokens.
  uint64_t unpaged_blocks = 0;  ///< The oldest blocks that belong to the rest of a saved state, whole pages of them.

  uint64_t sealed(uint64_t n_tokens) const { return n_tokens > residual ? (n_tokens - residual) / block_tokens : 0; }
  size_t tail_tokens(uint64_t max_tokens) const { return std::min<uint64_t>(max_tokens, residual + block_tokens); }
  uint64_t page_blocks() const { return kPageTokens / block_tokens; }
};

/// What stores with sealed blocks behind a tail in full precision have in common: the tail, the positions, the rhythm
/// of sealing, and how all of it is truncated and saved. What a block is made of is the derived store's affair.
///
/// Saved pages are whole blocks. The rest can be told of the present length alone, since the tail before it is sealed
/// by then: number of tokens and of blocks (i64 each), unpaged blocks, blocks behind the last page, what lies beside
/// the blocks, the tail, what lies beside the tail.
class TailKv : public KvLayer {
 public:
  void reserve(size_t n_tokens) override;
  int64_t n_tokens() const override { return n_tokens_; }
  /// Only into the tail: sealed blocks cannot be opened. More may be sealed then than a fresh sequence of that length
  /// would have, up to B - 1 tokens.
  bool truncate(int64_t n_tokens) override;

  PageRange sealed_pages() const override;
  int64_t first_page(int64_t n_tokens) const override;
  void save_page(int64_t page, StateWriter& out) const override;
  bool save_rest(int64_t n_tokens, StateWriter& out) const override;
  void load_page(int64_t page, StateReader& in) override;
  void load_rest(StateReader& in) override;

 protected:
  TailKv(const KvShape& shape, const SealRhythm& rhythm, uint64_t max_tokens, Ledger& ledger)
      : shape_(shape),
        rhythm_(rhythm),
        max_tokens_(max_tokens),
        ledger_(ledger),
        tail_(shape, rhythm.tail_tokens(max_tokens), ledger) {}

  /// Tokens until a block is due.
  size_t tail_room() const { return rhythm_.residual + rhythm_.block_tokens - tail_.size(); }
  /// Position of the oldest token of the tail.
  int64_t tail_first() const { return n_tokens_ - static_cast<int64_t>(tail_.size()); }
  /// Blocks there will be after n_tokens more. Throws Error(kContextOverflow).
  uint64_t blocks_after(size_t n_tokens) const;
  /// Appends rows [first, first + n) of `rows` to the tail; n <= tail_room().
  void append(const KvRows& rows, size_t first, size_t n);
  /// Moves the oldest tokens of a full tail into a block.
  void seal_if_due();
  void copy_tail_to(TailKv& copy) const;

  /// Makes room for n_blocks sealed blocks. Throws Error(kOutOfBudget, kIo).
  virtual void make_room(uint64_t n_blocks) = 0;
  /// Fills block n_sealed_ - 1 from the oldest tokens of the tail. Does not throw.
  virtual void seal() = 0;
  virtual void save_blocks(uint64_t first, uint64_t n, StateWriter& out) const = 0;
  /// There is room for them and n_sealed_ counts them.
  virtual void load_blocks(uint64_t first, uint64_t n, StateReader& in) = 0;
  virtual void save_beside_blocks(StateWriter&) const {}
  virtual void load_beside_blocks(StateReader&) {}
  virtual void save_beside_tail(StateWriter&) const {}
  virtual void load_beside_tail(StateReader&) {}

  KvShape shape_;
  SealRhythm rhythm_;
  uint64_t max_tokens_;
  Ledger& ledger_;
  OpenTail tail_;
  int64_t n_tokens_ = 0;
  uint64_t n_sealed_ = 0;  ///< Blocks.

 private:
  /// Takes blocks up to n_blocks into account. Throws Error(kContextOverflow, kOutOfBudget).
  void count_blocks(uint64_t n_blocks);
};

}  // namespace mneme
