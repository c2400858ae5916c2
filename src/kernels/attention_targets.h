#pragma once

#include "kernels/attention.h"
#include "kernels/cpu.h"

namespace mneme::kernels {

using AttendFn = void (*)(const AttentionQueries&, const AttentionKeys&, const AttentionTriple&);

/// The readable definition of attend(): one row after the other, in double.
void attend_scalar(const AttentionQueries& queries, const AttentionKeys& keys, const AttentionTriple& result);

/// attend() of a SIMD target, or null where this build has no code for it.
AttendFn simd_attend(Target target);

/// Largest head_dim and value_dim: a block of 16 converted keys and values must fit the stack scratch.
inline constexpr size_t kMaxAttentionDim = 576;

}  // namespace mneme::kernels
