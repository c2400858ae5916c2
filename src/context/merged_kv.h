#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "budget/buffer.h"
#include "context/kv_choices.h"
#include "context/kv_layer.h"
#include "context/open_tail.h"
#include "kernels/coded_attention.h"

namespace mneme {

/// Two neighbouring layers share one direction a token (MiniCache, arXiv 2405.14366).
///
/// For key (and value) vectors a and b of one token in the lower and the upper layer, over all kv heads together:
///   u_a = a / |a|, u_b = b / |b|, cos w = u_a . u_b
///   e = (sin((1-t) w) u_a + sin(t w) u_b) / sin w            spherical interpolation, t = 0.6
///   a is read as |a| e, b as |b| e
/// Tokens whose two vectors differ most keep both (the paper prints the inequality the other way round, against its text):
///   w > w_max - gamma (w_max - w_min), the extremes over the sequence so far; at most 2 of a block of 64, and always the first
///   token of the sequence. Chosen for keys and values apart.
/// Directions are kept as f16 or in the codec of the policy; norms are then those over the decoded direction.
///
/// Keys are rotated before they are merged: rotation is the same in both layers, so the order does not matter. The newest R >=
/// max_batch tokens of both layers stay apart, in full precision, since the upper layer follows the lower one by a whole pass.
///
/// Bytes of a block of the pair: one direction (f16 or codes) and 2 x 2 vectors kept, for keys and values; 8 bytes of norms a
/// token. Not here: layers that differ in shape or have a window (they stay apart), and more than two layers together.
class MergedPair {
 public:
  MergedPair(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens, uint32_t residual, Ledger& ledger);
  ~MergedPair();

  struct Layout;
  static uint64_t block_bytes(const KvShape& shape, const KvChoices& choices);

  /// Tells the pair where a layer's newest tokens lie; `layer` 0 is the lower one.
  void attach(size_t layer, const OpenTail* tail, const int64_t* tail_first) {
    tails_[layer] = tail;
    tail_firsts_[layer] = tail_first;
  }
  void reserve(uint64_t n_blocks);
  uint64_t bytes() const { return blocks_.committed(); }
  int64_t n_blocks() const { return n_blocks_; }
  /// Merges the next 64 tokens, which both tails must hold.
  void seal();
  /// Adds a block to the attention of rows of one layer and head that see all of it.
  void attend(int64_t block, size_t layer, size_t head, const kernels::AttentionQueries& queries,
              const kernels::AttentionTriple& result) const;
  std::shared_ptr<MergedPair> copy() const;
  /// Blocks as they lie, and what later ones depend on.
  void save(StateWriter& out) const;
  void load(StateReader& in);

  /// What a block of one layer is read as: keys [64, all heads * key_dim] and values alike; for comparisons.
  void decode(int64_t block, size_t layer, float* keys, float* values) const;

 private:
  struct Range {
    float min = 4, max = -1;  ///< Of the angles so far.
  };
  void merge_side(bool keys, std::byte* block);

  KvShape shape_;
  KvChoices choices_;
  uint64_t max_tokens_;
  uint32_t residual_;
  Ledger& ledger_;
  std::unique_ptr<const Layout> layout_;
  std::array<const OpenTail*, 2> tails_{};
  std::array<const int64_t*, 2> tail_firsts_{};
  GrowingBuffer blocks_;
  std::array<Range, 2> ranges_;   ///< Of keys and values.
  int64_t n_blocks_ = 0;
};

/// One layer of a pair.
class MergedKv : public KvLayer {
 public:
  /// `upper` layers count the pair's blocks as theirs.
  static StateSpec spec(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens, uint32_t max_batch, bool upper);
  /// R of a pair: the policy's residual, and no less than a pass.
  static uint32_t residual_of(const KvChoices& choices, uint32_t max_batch);

  MergedKv(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens, uint32_t max_batch, bool upper,
           std::shared_ptr<MergedPair> pair, Ledger& ledger);

  void reserve(size_t n_tokens) override;
  void extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) override;

  uint64_t bytes() const override { return tail_.bytes() + (upper_ ? pair_->bytes() : 0); }
  int64_t n_tokens() const override { return n_tokens_; }
  /// Only into the newest tokens.
  bool truncate(int64_t n_tokens) override;
  std::unique_ptr<LayerState> copy(CopyScope& scope) const override;

  /// All is rest; the upper layer writes the pair's blocks.
  bool save_rest(int64_t n_tokens, StateWriter& out) const override;
  void load_rest(StateReader& in) override;

  const MergedPair& pair() const { return *pair_; }

 private:
  void attend(const KvQueries& queries, size_t first, size_t n, float* out, size_t out_stride) const;

  KvShape shape_;
  KvChoices choices_;
  uint64_t max_tokens_;
  uint32_t max_batch_, residual_;
  bool upper_;
  Ledger& ledger_;
  std::shared_ptr<MergedPair> pair_;
  OpenTail tail_;
  int64_t n_tokens_ = 0, tail_first_ = 0;
};

}  // namespace mneme
