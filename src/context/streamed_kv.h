#pragma once

#include <limits>
#include <string>
#include <vector>

#include "context/tail_kv.h"

namespace mneme {

/// A TailKv whose blocks lie in a slower tier. Given tokens see all blocks, which stream past them a few at a time;
/// generated tokens, one by one, what the derived store chooses for each. A device that fails ends the sequence:
/// trouble() says why, outputs are 0 from then on.
class StreamedKv : public TailKv {
 public:
  void reserve(size_t n_tokens) override;
  void extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) override;
  std::string_view trouble() const override { return trouble_; }
  FetchCounts fetches() const override { return fetches_; }

 protected:
  using TailKv::TailKv;

  void fail_with(const Error& error) { trouble_ = error.what(); }

  /// Takes working memory for a call that may seal up to n_blocks; gives it back. Throws Error(kOutOfBudget).
  virtual void begin_call(uint64_t n_blocks) = 0;
  virtual void end_call() = 0;
  /// Given tokens that see the sealed blocks in the same form.
  virtual size_t given_at_once() const { return std::numeric_limits<size_t>::max(); }
  /// Adds blocks [begin, end) to triple(...) of given tokens [first, first + n). Tells failures by trouble_.
  virtual void attend_blocks(const KvQueries& queries, size_t first, size_t n, uint64_t begin, uint64_t end, float* out,
                             size_t out_stride) = 0;
  /// Attention of row `token` of `queries`, whose key is in the tail already, perhaps with later ones: it is at
  /// `position`. Tells failures by trouble_.
  virtual void attend_generated(const KvQueries& queries, size_t token, int64_t position, float* out) = 0;

  /// Rows [first, first + n) of a query head.
  kernels::AttentionQueries rows_of(const KvQueries& queries, size_t query_head, size_t first, size_t n) const;
  /// The triple of the given tokens under way, rows [first, first + n) of query head `head`.
  kernels::AttentionTriple triple(size_t head, size_t first, float* out, size_t out_stride);

  /// Tokens of one task.
  static constexpr size_t kTaskTokens = 64;

  FetchCounts fetches_;
  std::string trouble_;

 private:
  void extend_given(const KvRows& rows, const KvQueries& queries, size_t begin, size_t end, float* out,
                    size_t out_stride);
  void attend_tail(const KvQueries& queries, size_t first, size_t n, float* out, size_t out_stride);

  std::vector<float> max_, sum_;  ///< Of the given tokens under way, [query head][token].
  size_t n_given_ = 0;
};

}  // namespace mneme
