#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "budget/buffer.h"
#include "context/kv_choices.h"
#include "context/kv_layer.h"
#include "context/open_tail.h"
#include "kernels/coded_attention.h"

namespace mneme {

/// Mixed precision by importance (MiKV, arXiv 2402.18096): of the tokens that have left the newest R, a fraction r stays in high
/// precision and the others go to a few bits; none is dropped. With 0 bits they are: eviction by attention mass (H2O, arXiv
/// 2306.14048), through the same code.
///
/// Per kv head. Importance of token j: the attention that all queries of the head's group have given it so far,
///   a_j = sum over queries i >= j and heads of the group of p_ij.
/// Every time 64 tokens leave the tail, the sets grow to ceil(r k) high and k - ceil(r k) low blocks of 64 tokens, k the number
/// of times so far: either the 64 become a high block, or the 64 least important of them and of the high tier become a low one.
/// What is low stays low. A query sees all tokens, each as it was before the query's own token.
///
/// Low (and high, if coded) keys and values have groups of about half a head along the channels of one token. Keys are balanced
/// first: channel c of a key is multiplied by b_c and that of the query divided, b_c = sqrt(max|q_c| / max|k_c|) over the tokens
/// before the first demotion, so that neither has the outliers alone.
///
/// The paper chooses at the end of the prompt, whose attention it computes in full precision, with half of the high tier for
/// recent tokens; here the choice goes along with the tokens, with a fixed R, so the memory never holds the whole prompt.
class MikvKv : public KvLayer {
 public:
  static StateSpec spec(const KvShape& shape, const KvChoices& choices);

  /// `choices.importance` is set and `shape` has no window. Throws Error for a head size the codec does not have.
  MikvKv(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens, Ledger& ledger);
  ~MikvKv() override;

  void reserve(size_t n_tokens) override;
  void extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) override;
  bool needs_queries() const override { return true; }

  uint64_t bytes() const override;
  int64_t n_tokens() const override { return n_tokens_; }
  /// Always false but for the present length: the importance of tokens cannot be taken back.
  bool truncate(int64_t n_tokens) override { return n_tokens == n_tokens_; }
  std::unique_ptr<LayerState> copy(CopyScope& scope) const override;

  /// All is rest: which tokens are high changes.
  bool save_rest(int64_t n_tokens, StateWriter& out) const override;
  void load_rest(StateReader& in) override;

  uint64_t n_high_blocks() const { return n_high_; }
  uint64_t n_low_blocks() const { return n_low_; }

 private:
  struct Layout;
  struct Tier;

  void attend(const KvQueries& queries, size_t first, size_t n, float* out, size_t out_stride);
  void add_importance(const KvQueries& queries, size_t first, size_t n, std::span<const float> max, std::span<const float> sum);
  void watch_sizes(const KvQueries& queries, size_t first, size_t n);
  void freeze_balance();
  void seal();
  void seal_head(size_t head, bool grow_high);
  void read_tail(size_t head, size_t i, std::span<float> key, std::span<float> value) const;

  KvShape shape_;
  KvChoices choices_;
  uint64_t max_tokens_;
  Ledger& ledger_;
  std::unique_ptr<const Layout> layout_;
  OpenTail tail_;
  Buffer balance_;             ///< [kv head][key_dim] 1 / b, after the first demotion.
  Buffer sizes_;               ///< [2][kv head][key_dim] largest |q| and |k|, until then.
  Buffer tail_importance_;     ///< [kv head][tail capacity]
  GrowingBuffer high_, low_;   ///< [block][kv head][keys | values], high_ also [importance of 64]
  int64_t n_tokens_ = 0;
  uint64_t n_high_ = 0, n_low_ = 0;  ///< Blocks.
  bool balanced_ = false;
};

}  // namespace mneme
