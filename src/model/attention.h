#pragma once

#include <cstdint>
#include <memory>

#include "model/layers.h"
#include "model/mixer.h"

namespace mneme {

/// Multi-head attention with grouped keys and values (arXiv 1706.03762, 2305.13245).
struct AttentionSpec {
  uint32_t n_heads = 0, n_kv_heads = 0;
  uint32_t key_dim = 0, value_dim = 0;
  float scale = 0;          ///< Of the dot products; 1 / sqrt(key_dim) in most models.
  float softcap = 0;        ///< 0: off.
  uint32_t window = 0;      ///< Sliding window in tokens, 0: none.
  int rope = -1;            ///< Index of the model's rope kind, -1: none.
  bool causal = true;       ///< False: every token of a sequence sees every other (encoders); no state is kept.
};

/// Weights of an attention layer: either `qkv` (rows q, k, v) or the three apart.
struct AttentionWeights {
  Linear qkv, q, k, v;
  Norm q_norm, k_norm;  ///< Over each head's key_dim, before RoPE; optional.
  Linear output;
};

std::unique_ptr<SequenceMixer> make_attention(const AttentionSpec& spec, const AttentionWeights& weights);

}  // namespace mneme
