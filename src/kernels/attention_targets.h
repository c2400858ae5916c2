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

/// Turns the scores [lo, hi) of one row of at most 64, not scaled yet, into weights relative to the new maximum and brings
/// max and sum up to date; entries of the same vectors outside [lo, hi) become 0. `scores` is 64-byte aligned. Returns the
/// factor that the values summed so far need.
using SoftmaxRowFn = float (*)(const AttentionQueries&, float* scores, size_t lo, size_t hi, float& max, float& sum);

float softmax_row_scalar(const AttentionQueries& queries, float* scores, size_t lo, size_t hi, float& max, float& sum);

/// softmax_row of a SIMD target, or null where this build has no code for it.
SoftmaxRowFn simd_softmax_row(Target target);

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
