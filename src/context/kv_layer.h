#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "budget/ledger.h"
#include "context/layer_state.h"
#include "context/rope.h"

namespace mneme {

/// Shape and rules of the attention of one layer, as its store of keys and values must know them.
struct KvShape {
  uint32_t n_kv_heads = 0;
  uint32_t key_dim = 0, value_dim = 0;
  uint32_t window = 0;  ///< A token sees itself and the window - 1 tokens before it; 0: all before it.
};

/// New keys and values of consecutive tokens.
struct KvRows {
  const float* k;          ///< [n_tokens, n_kv_heads * key_dim] before RoPE, rows k_stride floats apart.
  const float* v;          ///< [n_tokens, n_kv_heads * value_dim], rows v_stride floats apart.
  size_t k_stride, v_stride;
  size_t n_tokens;
  const RopeAngles* angles;  ///< Angles of the batch, or null when the layer has no rotation.
  size_t first_angle;        ///< Index of the first of these tokens in `angles`.
};

/// Queries of consecutive tokens: the last n_tokens of the store.
struct KvQueries {
  const float* q;          ///< [n_tokens, n_heads * key_dim] after RoPE, rows q_stride floats apart.
  size_t q_stride;
  size_t n_tokens, n_heads;
  float scale;             ///< Factor of the dot products.
  float softcap = 0;       ///< 0: off.
  const float* sinks = nullptr;  ///< [n_heads] logits without a value, or null.
};

/// Keys and values of one layer of one sequence, behind whatever codec, policy and placement the store was made with.
///
/// Keys arrive before RoPE; a store that keeps rotated keys applies the rotation itself. Position of a token = number of
/// tokens appended before it.
class KvLayer : public LayerState {
 public:
  /// Appends tokens at positions n_tokens(), n_tokens() + 1, ... Throws Error(kOutOfBudget or kContextOverflow) before
  /// anything is changed.
  virtual void append(const KvRows& rows) = 0;
  /// Causal attention of the last tokens over everything they may see:
  /// out [n_tokens, n_heads * value_dim], rows out_stride floats apart. Parallel inside.
  virtual void attend(const KvQueries& queries, float* out, size_t out_stride) const = 0;
};

}  // namespace mneme
