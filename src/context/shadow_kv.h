#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "budget/buffer.h"
#include "context/feature_map.h"
#include "context/kv_choices.h"
#include "context/landmarks.h"
#include "context/streamed_kv.h"
#include "context/value_tier.h"

namespace mneme {

/// ShadowKV (arXiv 2410.21465): keys as a low-rank product, values in a slower tier, and attention of generated tokens
/// over a few chunks of 8 tokens that are chosen for each of them.
///
/// The newest `residual` to residual + 63 tokens are f16 in a tail. Older ones are sealed in blocks of 64:
///
///   - keys: features z = k B^T, [rank] f16, of the keys of all C = kv heads * key_dim channels before RoPE; B is
///     [rank, C]
///   - landmarks: one vector a chunk and head (landmarks.h), of the keys after RoPE
///   - values: f16 in a ValueTier, [block][head][64][value_dim]
///   - outliers: the chunks whose keys are least alike, per head; exact keys (after RoPE) and values stay in memory
///   - slots: keys (rebuilt, after RoPE) and values of the chunks that were chosen last, per head, twice as many as a
///     token may choose; misses alone are fetched and rebuilt, the first while the second runs
///
/// Given tokens attend to everything: values of all blocks pass through a panel of memory. Generated tokens attend to
/// the outliers, to the chosen chunks and to the tail.
///
/// Where this differs from the paper. B is fitted to the first `fit` tokens, when they are sealed, and then stays: the
/// paper fits it to the whole prompt, but here what is stored must not depend on where a prompt ends. Before that the
/// keys of blocks are exact. Tokens that the model generates are sealed like all others. Outliers are chosen as blocks
/// are sealed: a chunk takes the place of the most alike one of those kept so far, whose exact keys are then gone.
/// Attention of given tokens is over the low-rank keys, not the exact ones.
class ShadowKv : public StreamedKv {
 public:
  static constexpr size_t kBlock = 64, kChunk = Landmarks::kTokens, kBlockChunks = kBlock / kChunk;

  static StateSpec spec(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens);
  /// Working memory beside the state that one call may take.
  static uint64_t working_bytes(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens);
  /// Bytes of its file at n_tokens.
  static uint64_t disk_bytes(const KvShape& shape, const KvChoices& choices, uint64_t n_tokens);

  ShadowKv(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens, Ledger& ledger);
  ~ShadowKv() override;

  void extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) override;

  uint64_t bytes() const override;
  /// Pages begin behind the tokens that the basis was fitted to: [4 blocks] of landmarks, features, values. In the rest
  /// the basis goes before the first block, outliers lie beside the blocks.
  std::unique_ptr<LayerState> copy(CopyScope& scope) const override;

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
    uint32_t wanted;  ///< Head::n_chosen when the chunk was chosen last.
  };
  /// Of one kv head.
  struct Head {
    std::vector<Outlier> outliers;        ///< Entry i lies at place i of the outliers' memory.
    std::vector<int32_t> outlier_chunks;  ///< Ascending.
    std::vector<Slot> resident;           ///< Ascending by chunk.
    uint32_t n_chosen = 0;                ///< Times that chunks were chosen.
    std::vector<int32_t> chosen;          ///< By the token at hand, ascending.
    std::vector<Slot> missing;
  };

  static SealRhythm rhythm_of(const KvChoices& choices);

  bool fitted() const { return n_sealed_ >= fit_blocks_; }
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

  void make_room(uint64_t n_blocks) override;
  void begin_call(uint64_t n_blocks) override;
  void end_call() override;
  /// Up to the token whose end brings the basis: what is behind it sees other keys.
  size_t given_at_once() const override;
  void rebuild(uint64_t block, size_t first, size_t n, size_t head, const RopeRuns& runs, float* keys) const;

  void attend_blocks(const KvQueries& queries, size_t first, size_t n, uint64_t begin, uint64_t end, float* out,
                     size_t out_stride) override;
  void attend_generated(const KvQueries& queries, size_t token, int64_t position, float* out) override;
  void choose(size_t head, const float* q, const KvQueries& how, Head& state) const;
  void find_places(Head& state) const;
  void rebuild_missing(size_t head);
  void copy_missing(size_t head);
  void read_missing();
  void attend_chosen(size_t head, const KvQueries& queries, size_t token, int64_t position, float* out);

  void seal() override;
  void keep_outliers(size_t head, const float* similarity);
  void fit();
  void save_blocks(uint64_t first, uint64_t n, StateWriter& out) const override;
  void load_blocks(uint64_t first, uint64_t n, StateReader& in) override;
  void save_beside_blocks(StateWriter& out) const override;
  void load_beside_blocks(StateReader& in) override;

  KvChoices choices_;
  std::unique_ptr<const Sizes> sizes_;
  FeatureMap map_;
  uint64_t fit_blocks_;
  size_t pair_bytes_;  ///< Keys and values of one chunk and head, f16.
  /// Exact keys [block][head][64][key_dim] f16 until the basis is there, then basis and features.
  GrowingBuffer keys_;
  Landmarks landmarks_;
  std::unique_ptr<ValueTier> values_;
  GrowingBuffer outliers_, slots_;  ///< [place][head]{keys [8, key_dim], values [8, value_dim]} f16.
  std::vector<Head> heads_;
  Buffer work_;  ///< During a call.
  Reservation fit_work_;
  std::optional<RopeRuns> runs_;  ///< During a call.
};

}  // namespace mneme
