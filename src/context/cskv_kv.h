#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "context/attention_spans.h"
#include "context/block_kv.h"
#include "context/kv_bases.h"
#include "context/kv_choices.h"

namespace mneme {

/// CSKV (arXiv 2409.10593): keys and values as features in bases that are fitted to the model once, behind a tail in
/// full precision.
///
/// The newest `residual` to residual + 63 tokens are f16 in a tail. Older ones are sealed in blocks of 64:
///   z_k = k B_k^T [64, r_k] of the keys of all kv heads before RoPE, z_v = v B_v^T [64, r_v]; f16, or integer codes
///   with the formats that a codec gives keys and values of other stores (z_k in groups along the tokens of a feature,
///   z_v along the features of a token)
/// Attention rebuilds the keys of a block, k = z_k B_k, and rotates them; values stay features until the end:
///   out = p V = (p z_v) B_v.
///
/// Ranks r_k and r_v are those of the layer's bases: the same in every layer, or each its own (`ranks=measured`).
///
/// Where this differs from the paper. It has one density for all layers. The bases are the closed form of the
/// layer-wise loss (kv_bases.h), so there is no gradient descent, nor training that knows of the quantisation. Keys are
/// taken as the store gets them, with bias and head norm. The tail is a sliding one of all stores, not one that empties
/// every 32 tokens; prompts see features too. The factors are kept for keys and values, not for the layer's input: 2 C
/// r a layer beside the weights, counted with the process.
class CskvKv : public BlockKv {
 public:
  /// Bytes of a layer whose features are this many.
  static StateSpec spec(const KvShape& shape, const KvChoices& choices, const KvRanks& ranks, uint64_t max_tokens);
  /// The ranks that a density gives every layer of a shape: whole features a head. Throws Error(kInvalidArgument) for
  /// less than one.
  static KvRanks equal_ranks(const KvShape& shape, const KvChoices& choices);
  /// Bytes of the features of a block of 64 keys, and of 64 values.
  static uint64_t key_block_bytes(const KvChoices& choices, size_t rank);
  static uint64_t value_block_bytes(const KvChoices& choices, size_t rank);
  /// Refuses bases that were not made for a layer of this shape and these choices: Error(kInvalidArgument).
  static void check(const KvShape& shape, const KvChoices& choices, const KvBases* bases, size_t layer);

  /// `bases` is as check() wants it.
  CskvKv(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens, std::shared_ptr<const KvBases> bases,
         size_t layer, Ledger& ledger);
  ~CskvKv() override;

  void extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) override;
  std::unique_ptr<LayerState> copy(CopyScope& scope) const override;

  /// Keys (after RoPE) and values of a sealed block and head as attention sees them, [64, dim] f32; for tests.
  void decode(uint64_t block, size_t head, const RopeSpec* rope, float* keys, float* values) const;
  /// The bytes of a block: features of keys, then of values.
  std::span<const std::byte> block(uint64_t i) const;

 private:
  struct Layout;
  static std::unique_ptr<const Layout> checked_layout(const KvShape& shape, const KvChoices& choices,
                                                      const KvBases* bases, size_t layer);
  CskvKv(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens, std::shared_ptr<const KvBases> bases,
         size_t layer, std::unique_ptr<const Layout> layout, Ledger& ledger);

  const KvBases::Layer& basis() const { return bases_->layers[layer_]; }
  /// f16 features of a block's keys or values, [64, rank]; decoded to `room` when they are codes.
  const std::byte* key_features(uint64_t block, std::vector<std::byte>& room) const;
  const std::byte* value_features(uint64_t block, std::vector<std::byte>& room) const;
  void attend(const KvQueries& queries, size_t first, size_t n, float* out, size_t out_stride) override;
  void attend_block(const SpanRows& rows, uint64_t block, const kernels::AttentionTriple& features) const;
  void seal() override;

  KvChoices choices_;
  std::shared_ptr<const KvBases> bases_;
  size_t layer_;
  std::unique_ptr<const Layout> layout_;
  std::optional<RopeRuns> runs_;  ///< During a call.
};

}  // namespace mneme
