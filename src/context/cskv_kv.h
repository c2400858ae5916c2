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
/// Where this differs from the paper. The bases are the closed form of the layer-wise loss (kv_bases.h), so there is no
/// gradient descent, nor training that knows of the quantisation. Keys are taken as the store gets them, with bias and
/// head norm. The tail is a sliding one of all stores, not one that empties every 32 tokens; prompts see features too.
/// The factors are kept for keys and values, not for the layer's input: 2 C r a layer beside the weights, counted with
/// the process.
class CskvKv : public BlockKv {
 public:
  static StateSpec spec(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens);
  /// The maps that bases must have. Throws Error(kInvalidArgument) for a density under one feature a head.
  static FeatureMap key_map(const KvShape& shape, const KvChoices& choices);
  static FeatureMap value_map(const KvShape& shape, const KvChoices& choices);

  /// `bases` is of this shape and these choices. Throws Error(kInvalidArgument) when it is not.
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
  static Layout layout_of(const KvShape& shape, const KvChoices& choices);

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
