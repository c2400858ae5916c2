#pragma once

#include "kernels/attention.h"
#include "kernels/attention_parts.h"
#include "kernels/cpu.h"

namespace mneme::kernels {

using AttendFn = void (*)(const AttentionQueries&, const AttentionKeys&, const AttentionTriple&);

/// The readable definition of attend(): one row after the other, in double.
void attend_scalar(const AttentionQueries& queries, const AttentionKeys& keys, const AttentionTriple& result);

/// attend() of a SIMD target, or null where this build has no code for it.
AttendFn simd_attend(Target target);

/// Turns the scores [lo[r], hi[r]) of each row of scores [n_rows, 64], not scaled yet, into weights relative to the row's new
/// maximum and brings max[r] and sum[r] up to date; entries of the same vectors outside [lo, hi) become 0. keep[r] is the
/// factor that the values summed so far need; an empty range leaves its row alone and keeps 1. `scores` is 64-byte aligned.
/// A row's bits do not depend on the others.
using SoftmaxRowsFn = void (*)(const AttentionQueries&, float* scores, size_t n_rows, const size_t* lo, const size_t* hi,
                               float* max, float* sum, float* keep);

void softmax_rows_scalar(const AttentionQueries& queries, float* scores, size_t n_rows, const size_t* lo, const size_t* hi,
                         float* max, float* sum, float* keep);

/// softmax_rows of a SIMD target, or null where this build has no code for it.
SoftmaxRowsFn simd_softmax_rows(Target target);

using ScoreRowsFn = void (*)(const float* q, size_t q_stride, size_t n_rows, const StoredRows& keys, size_t n_keys, size_t dim,
                             float* scores, size_t scores_stride);
using CombineRowsFn = void (*)(const float* weights, size_t weights_stride, size_t n_rows, const StoredRows& values,
                               size_t n_values, size_t dim, float* out, size_t out_stride);

/// score_rows() and combine_rows() of a SIMD target, or null where this build has no code for it.
ScoreRowsFn simd_score_rows(Target target);
CombineRowsFn simd_combine_rows(Target target);

/// Largest head_dim and value_dim: a block of 16 converted keys and values must fit the stack scratch.
inline constexpr size_t kMaxAttentionDim = 576;

}  // namespace mneme::kernels
