#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

/// Softmax attention of a few query rows over one contiguous run of keys and values of one kv head. Results over several
/// runs (RAM, disk, another machine) merge exactly, since a run contributes a triple (maximum, sum of exponentials,
/// weighted sum of values) instead of a finished average.
namespace mneme::kernels {

/// Query rows of one kv head: for grouped-query attention the rows of all query heads that share it.
struct AttentionQueries {
  const float* q;             ///< [n_rows, head_dim], rotated, not scaled.
  size_t n_rows, q_stride;    ///< Stride between rows in floats.
  size_t head_dim, value_dim;
  float scale;                ///< Factor of the dot products, usually 1 / sqrt(head_dim).
  float softcap;              ///< c > 0: scores become c * tanh(score / c); 0: off.
};

/// A run of keys and values of one kv head.
struct AttentionKeys {
  const std::byte* k;         ///< Key j at k + j * k_stride_bytes, head_dim elements.
  const std::byte* v;         ///< Value j at v + j * v_stride_bytes, value_dim elements.
  size_t k_stride_bytes, v_stride_bytes;
  DType dtype;                ///< kF32, kF16 or kBF16.
  /// Row i sees keys [first[i], last[i]) of this run; an empty range is allowed.
  const uint32_t* first;
  const uint32_t* last;
  /// Keys and values of the run that is read next, of the same strides, or null: its beginning is asked for meanwhile.
  const std::byte* next_k = nullptr;
  const std::byte* next_v = nullptr;
};

/// Running result for n_rows rows: max and sum [n_rows], out [n_rows, value_dim] with stride out_stride, not normalised.
/// Start: max = -inf, sum = 0, out = 0.
struct AttentionTriple {
  float* max;
  float* sum;
  float* out;
  size_t out_stride;
};

/// Adds the run to the running result. Single-threaded; callers spread heads, rows and runs over threads.
void attend(const AttentionQueries& queries, const AttentionKeys& keys, const AttentionTriple& result);

/// Merges `part` into `result` (same rows, value_dim).
void merge_attention(const AttentionTriple& part, size_t n_rows, size_t value_dim, const AttentionTriple& result);

/// out /= sum for every row; a row that saw no key becomes zero. `sink` (may be null): a logit per row without a value,
/// added to the denominator.
void finish_attention(const AttentionTriple& result, size_t n_rows, size_t value_dim, const float* sink);

}  // namespace mneme::kernels
