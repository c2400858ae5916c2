#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "budget/buffer.h"
#include "context/kv_choices.h"
#include "context/kv_layer.h"
#include "context/landmarks.h"
#include "context/feature_map.h"
#include "context/open_tail.h"
#include "context/value_tier.h"

namespace mneme {

/// ShadowKV (arXiv 2410.21465): keys as a low-rank product, values in a slower tier, and attention of generated tokens
/// over a few chunks of 8 tokens that are chosen for each of them.
///
/// The newest `residual` to residual + 63 tokens are f16 in a tail. Older ones are sealed in blocks of 64:
///   keys       features z = k B^T, [rank] f16, of the keys of all C = kv heads * key_dim channels before RoPE; B
///   [rank, C] landmarks  one vector a chunk and head (landmarks.h), of the keys after RoPE values     f16 in a
///   ValueTier, [block][head][64][value_dim] outliers   the chunks whose keys are least alike, per head; exact keys
///   (after RoPE) and values stay in memory slots      keys (rebuilt, after RoPE) and values of the chunks that were
///   chosen last, per head; misses alone are
///              fetched and rebuilt, the first while the second runs
///
/// Given tokens attend to everything: values of all blocks pass through a panel of memory. Generated tokens attend to
/// the outliers, to the chosen chunks and to the tail.
///
/// Where this differs from the paper. B is fitted to the first `fit` tokens, when they are sealed, and then stays: the
/// paper fits it to the whole prompt, but here what is stored must not depend on where a prompt ends. Before that the
/// keys of blocks are exact. Tokens that the model generates are sealed like all others. Outliers are chosen as blocks
/// are sealed: a chunk takes the place of the most alike one of those kept so far, whose exact keys are then gone.
/// Attention of given tokens is over the low-rank keys, not the exact ones.
class ShadowKv : public KvLayer {
 public:
  static constexpr size_t kBlock = 64, kChunk = Landmarks::kTokens, kBlockChunks = kBlock / kChunk;

  static StateSpec spec(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens);
  /// Working memory beside the state that one call may take.
  static uint64_t working_bytes(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens);

  ShadowKv(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens, Ledger& ledger);
  ~ShadowKv() override;

  void reserve(size_t n_tokens) override;
  void extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) override;

  uint64_t bytes() const override;
  int64_t n_tokens() const override { return n_tokens_; }
  std::string_view trouble() const override { return trouble_; }
  FetchCounts fetches() const override { return fetches_; }
  bool truncate(int64_t n_tokens) override;
  std::unique_ptr<LayerState> copy(CopyScope& scope) const override;

  /// Pages begin behind the tokens that the basis was fitted to: [4 blocks] of landmarks, features, values. The rest:
  /// number of tokens and of blocks (i64), the blocks before the pages and behind them, outliers, tail.
  PageRange sealed_pages() const override;
  int64_t first_page(int64_t n_tokens) const override;
  void save_page(int64_t page, StateWriter& out) const override;
  bool save_rest(int64_t n_tokens, StateWriter& out) const override;
  void load_page(int64_t page, StateReader& in) override;
  void load_rest(StateReader& in) override;

  /// For tests: keys (after RoPE) of a sealed block and head as attention sees them, [64, key_dim] f32.
  void decode_keys(uint64_t block, size_t head, const RopeSpec* rope, float* keys) const;
  /// Chunks of a head that the last generated token saw beside the tail: outliers and chosen ones, ascending.
  std::vector<int32_t> seen_chunks(size_t head) const;
  /// Of the file with values, -1 without one.
  int descriptor() const { return values_->descriptor(); }

 private:
  struct Sizes;
  static constexpr size_t kBatchReads = 256;  ///< Reads of one batch.
  static AsyncReader& reader_of_thread();
  struct Outlier {
    int32_t chunk;
    float similarity;
  };
  struct Slot {
    int32_t chunk;
    uint32_t slot;
  };
  /// Of one kv head.
  struct Head {
    std::vector<Outlier> outliers;        ///< Entry i lies at place i of the outliers' memory.
    std::vector<int32_t> outlier_chunks;  ///< Ascending.
    std::vector<Slot> resident;           ///< Ascending by chunk.
    std::vector<int32_t> chosen;          ///< By the token at hand, ascending.
    std::vector<Slot> missing;
    std::vector<float> scores;
  };

  /// Tokens until a block is due.
  size_t tail_room() const { return choices_.residual + kBlock - tail_.size(); }
  bool fitted() const { return n_sealed_ >= fit_blocks_; }
  void fail_with(const Error& error) { trouble_ = error.what(); }
  std::byte* exact_keys(uint64_t block, size_t head);
  const std::byte* exact_keys(uint64_t block, size_t head) const {
    return const_cast<ShadowKv*>(this)->exact_keys(block, head);
  }
  const float* basis() const { return reinterpret_cast<const float*>(keys_.data()); }
  std::byte* features(uint64_t block) { return keys_.data() + map_.basis_bytes() + block * kBlock * map_.row_bytes(); }
  const std::byte* features(uint64_t block) const { return const_cast<ShadowKv*>(this)->features(block); }
  std::byte* pair_at(GrowingBuffer& buffer, size_t place, size_t head) const {
    return buffer.data() + (place * shape_.n_kv_heads + head) * pair_bytes_;
  }

  void grow(uint64_t n_blocks);
  void rebuild(uint64_t block, size_t first, size_t n, size_t head, const RopeRuns& runs, float* keys) const;

  /// The triple of the given tokens under way, rows [first, first + n) of query head `head`.
  kernels::AttentionTriple triple(size_t head, size_t first, float* out, size_t out_stride);
  void extend_given(const KvRows& rows, const KvQueries& queries, size_t begin, size_t end, const RopeRuns& runs,
                    float* out, size_t out_stride);
  void attend_blocks(const KvQueries& queries, size_t first, size_t n, uint64_t begin, uint64_t end,
                     const RopeRuns& runs, float* out, size_t out_stride);
  void attend_tail(const KvQueries& queries, size_t first, size_t n, float* out, size_t out_stride);

  void attend_sparse(const KvQueries& queries, size_t token, int64_t position, const RopeRuns& runs, float* out);
  void choose(size_t head, const float* q, const KvQueries& how, Head& state) const;
  void find_places(Head& state) const;
  void bring_missing(const RopeRuns& runs);
  void rebuild_missing(size_t head, const RopeRuns& runs);
  void read_missing(const RopeRuns& runs);
  void attend_chosen(size_t head, const KvQueries& queries, size_t token, int64_t position, float* out);

  void seal(const RopeRuns& runs);
  void keep_outliers(size_t head, const float* similarity);
  void fit(const RopeRuns& runs);
  void save_blocks(uint64_t first, uint64_t n, StateWriter& out) const;
  void load_blocks(uint64_t first, uint64_t n, StateReader& in);

  KvShape shape_;
  KvChoices choices_;
  uint64_t max_tokens_;
  Ledger& ledger_;
  std::unique_ptr<const Sizes> sizes_;
  FeatureMap map_;
  uint64_t fit_blocks_;
  size_t pair_bytes_;  ///< Keys and values of one chunk and head, f16.
  OpenTail tail_;
  GrowingBuffer
      keys_;  ///< Exact keys [block][head][64][key_dim] f16 until the basis is there, then basis and features.
  Landmarks landmarks_;
  std::unique_ptr<ValueTier> values_;
  GrowingBuffer outliers_, slots_;  ///< [place][head]{keys [8, key_dim], values [8, value_dim]} f16.
  std::vector<Head> heads_;
  Buffer work_;  ///< During a call.
  Reservation fit_work_;
  std::vector<float> max_, sum_;  ///< Of the given tokens under way, [query head][token].
  size_t n_given_ = 0;
  int64_t n_tokens_ = 0;
  uint64_t n_sealed_ = 0;  ///< Blocks.
  FetchCounts fetches_;
  std::string trouble_;
};

}  // namespace mneme
