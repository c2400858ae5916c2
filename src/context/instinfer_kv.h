#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "budget/buffer.h"
#include "context/kv_choices.h"
#include "context/kv_file.h"
#include "context/page_groups.h"
#include "context/page_stream.h"
#include "context/sparf.h"
#include "context/streamed_kv.h"

namespace mneme {

/// InstInfer (arXiv 2409.04992): keys and values in a file, attention beside it, and SparF attention of generated
/// tokens (sparf.h) over a few channels and tokens that are read for each of them.
///
/// The newest `residual` to residual + G - 1 tokens are f16 in a tail, where they are always chosen; older ones are
/// sealed in blocks of G = 2048 / `channels` tokens and written to the file (page_groups.h), keys twice: by tokens and
/// by channels. With density p and S sealed tokens of D channels, a generated token reads, a kv head:
///   pages with one of r = ceil(p D) channels, of which r S elements pass to the scores
///   pairs of pages with one of k = ceil(p S) tokens, of which k (key_dim + value_dim) elements pass to the attention
/// Given tokens see everything: all token groups stream past them. Density 1 is dense attention for generated tokens
/// too, and needs no copy by channels.
///
/// Bytes: memory is the tail and the mean of the sealed values, whatever the length; the file has 2 (2 key_dim +
/// value_dim) a token and head where pages are full. A layer writes its blocks while it takes its tokens, so that a
/// prompt is never in memory.
///
/// Where this differs from the paper. Prompts are read in chunks, so given tokens attend here too, not in the computing
/// node. k and p count the sealed tokens, the tail comes on top. Keys by tokens are written in blocks of G too, not
/// every u tokens. Nothing is reclaimed in idle periods: the file goes with its sequence.
class InstInferKv : public StreamedKv {
 public:
  static StateSpec spec(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens);
  /// Most working memory beside the state that one call takes; shape.n_heads counts.
  static uint64_t working_bytes(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens);
  /// Bytes of the file at n_tokens.
  static uint64_t disk_bytes(const KvShape& shape, const KvChoices& choices, uint64_t n_tokens);

  /// Throws Error(kIo) when there is no file to be had.
  InstInferKv(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens, Ledger& ledger);

  void extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) override;
  uint64_t bytes() const override;
  /// Saved are keys and values of sealed blocks, [block][head]{keys [G, key_dim], values [G, value_dim]} f16; the copy
  /// by channels and the mean follow from them.
  std::unique_ptr<LayerState> copy(CopyScope& scope) const override;

  /// For tests: tokens of a head that the last generated one saw beside the tail, ascending.
  const std::vector<uint32_t>& chosen_tokens(size_t head) const { return heads_[head].tokens; }
  /// Mean of the values of sealed tokens, [value_dim].
  std::span<const float> mean_value(size_t head) const;
  const PageGroups& layout() const { return layout_; }
  int descriptor() const { return file_.descriptor(); }

 private:
  /// Of one kv head, during a generated token.
  struct Head {
    std::vector<uint32_t> channels, tokens;
    std::vector<float> logits;  ///< [group, tokens].
    std::vector<float> room;
    std::vector<SparfShare> shares;
  };

  static SealRhythm rhythm_of(const KvChoices& choices);
  static PageGroups layout_of(const KvShape& shape, const KvChoices& choices);

  uint64_t n_old() const { return n_sealed_ * layout_.block_tokens; }
  void make_room(uint64_t n_blocks) override { file_.grow_to(n_blocks * layout_.block_bytes()); }
  void begin_call(uint64_t n_blocks) override;
  void end_call() override;
  void attend_blocks(const KvQueries& queries, size_t first, size_t n, uint64_t begin, uint64_t end, float* out,
                     size_t out_stride) override;
  void attend_generated(const KvQueries& queries, size_t token, int64_t position, float* out) override;
  bool score_sealed(const float* q, size_t group, size_t n_all);
  void choose(const float* q, const KvQueries& how, size_t n_all);
  bool attend_chosen(const float* q, const KvQueries& how, float* max, float* sum, float* out);
  void finish(size_t head, const KvQueries& queries, const float* q, int64_t position,
              const kernels::AttentionTriple& result) const;
  /// Streams a list through the working memory; false when it could not be read, which trouble_ says then.
  bool stream(const PageList& list, FunctionRef<void(size_t first, size_t n, std::byte* const* data)> use);

  void seal() override;
  void add_to_mean(size_t head, uint64_t block, const std::byte* values);
  void save_blocks(uint64_t first, uint64_t n, StateWriter& out) const override;
  void load_blocks(uint64_t first, uint64_t n, StateReader& in) override;

  KvChoices choices_;
  PageGroups layout_;
  bool dense_;
  KvFile file_;
  Buffer mean_;  ///< [kv head][value_dim] f32.
  std::vector<Head> heads_;
  Buffer work_;  ///< During a call.
  Reservation scores_;
};

}  // namespace mneme
