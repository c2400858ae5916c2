#pragma once

#include <span>

#include "kernels/attention.h"
#include "kernels/coded_matrix.h"

namespace mneme::kernels {

/// Tokens of a block of stored keys and values.
inline constexpr size_t kBlockTokens = 64;

/// Keys of one block and kv head: coded as a matrix [64 tokens, channels], or rows of f16 when `matrix` is null.
struct BlockKeys {
  const CodedMatrix* matrix;
  const std::byte* data;               ///< Codes, or [64, n_channels] f16.
  size_t n_channels;                   ///< Channels that are stored: head_dim, or fewer with a list.
  const uint8_t* channels = nullptr;   ///< Which of head_dim they are (ThinK, arXiv 2407.21018); null: the first ones.
  const float* norms = nullptr;        ///< [64] factor of each token's stored key (MiniCache, arXiv 2405.14366); null: 1.
  const std::byte* ahead = nullptr;    ///< Coded keys that will be read soon and are asked for meanwhile, or null.
};

/// Values of one block and kv head: coded as a matrix [value_dim, 64 tokens], or rows of f16 when `matrix` is null.
struct BlockValues {
  const CodedMatrix* matrix;
  const std::byte* data;
  const float* norms = nullptr;        ///< [64] factor of each token's stored value; null: 1.
  const std::byte* ahead = nullptr;    ///< As BlockKeys::ahead.
};

/// Tokens of a block that have their own full keys or values, which stand in for the stored ones: n rows of f16 of one head.
struct BlockExceptions {
  size_t n = 0;
  const uint8_t* tokens = nullptr;     ///< [n] numbers in the block.
  const std::byte* rows = nullptr;     ///< Row i at rows + i * stride_bytes.
  size_t stride_bytes = 0;
};

/// Adds a block to the running attention of n_rows rows, of which row i sees the tokens [first[i], last[i]). Scores and
/// sums are computed from the codes. Single-threaded; a row's result does not depend on the others.
void attend_block(const AttentionQueries& queries, const BlockKeys& keys, const BlockValues& values, const uint32_t* first,
                  const uint32_t* last, const AttentionTriple& result, const BlockExceptions& key_exceptions = {},
                  const BlockExceptions& value_exceptions = {});

/// attend_block() of consecutive blocks that all rows see whole, without exceptions. Blocks that are coded both in keys and
/// values, of all channels and without norms, are taken four at a time, which is faster; the result differs from one block
/// after the other only in rounding, and depends on `keys` and `values`, not on the rows beside one.
void attend_blocks(const AttentionQueries& queries, std::span<const BlockKeys> keys, std::span<const BlockValues> values,
                   const AttentionTriple& result);

/// The weights exp(score - max) / sum that the rows gave to the tokens of a block, added up over rows: weights[64] +=.
/// `max` and `sum` [n_rows] are those of the finished attention. For policies that keep the tokens that matter.
void add_block_weights(const AttentionQueries& queries, const BlockKeys& keys, const uint32_t* first, const uint32_t* last,
                       const float* max, const float* sum, float* weights);

}  // namespace mneme::kernels
