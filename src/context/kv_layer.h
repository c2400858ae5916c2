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
  uint32_t n_heads = 0;  ///< Query heads, at least n_kv_heads; only sizes of working memory depend on it. 0: not known.

  bool operator==(const KvShape&) const = default;
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

/// Where tokens come from.
enum class TokenRole : uint8_t {
  kGiven,      ///< Prompt, or text that is only scored.
  kGenerated,  ///< The model's own, one at a time.
};

/// Queries of the same tokens.
struct KvQueries {
  const float* q;          ///< [n_tokens, n_heads * key_dim] after RoPE, rows q_stride floats apart.
  size_t q_stride;
  size_t n_heads;          ///< 0: tokens are appended and nothing attends, in stores that don't need queries.
  float scale;             ///< Factor of the dot products.
  float softcap = 0;       ///< 0: off.
  const float* sinks = nullptr;  ///< [n_heads] logits without a value, or null.
  TokenRole role = TokenRole::kGiven;  ///< Of all these tokens.
};

/// Keys and values of one layer of one sequence, behind whatever codec, policy and placement the store was made with.
///
/// Keys arrive before RoPE; a store that keeps rotated keys applies the rotation itself. Position of a token = number
/// of tokens appended before it.
///
/// What a token's query sees, and the state after it, depend on the tokens up to it alone: not on how the sequence was
/// cut into calls, nor on where a prompt ended. Stores that drop precision with age do so at fixed positions, so a
/// sequence can be resumed, shared and replayed. The one exception is TokenRole: a store may let generated tokens see less
/// than given ones, for speed. What it stores of either is the same.
class KvLayer : public LayerState {
 public:
  /// Makes room for n_tokens more, at positions n_tokens(), n_tokens() + 1, ... Throws Error(kOutOfBudget,
  /// kContextOverflow or kInvalidArgument) before anything is changed.
  virtual void reserve(size_t n_tokens) = 0;
  /// Appends tokens that room was made for and writes the causal attention of each over everything it may see:
  /// out [n_tokens, n_heads * value_dim], rows out_stride floats apart. Does not throw: what fails is told by trouble().
  /// Parallel inside.
  virtual void extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) = 0;
  /// Whether what is kept depends on the queries, or they must be sent: then there is no extend() without them.
  virtual bool needs_queries() const { return false; }
};

}  // namespace mneme
