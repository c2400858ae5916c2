#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/function_ref.h"
#include "context/kv_layer.h"
#include "kernels/attention.h"

namespace mneme {

/// Query rows of consecutive tokens and one kv head, gathered: row r is token first_token + r / group, query head r % group of
/// the kv head's group.
struct SpanRows {
  size_t head, first_token, n_tokens, group;
  kernels::AttentionQueries queries;
};

/// Maximum of the scores and sum of exp(score - maximum) of every row, [n_tokens, n_heads] each, or null.
struct SpanStatistics {
  float* max = nullptr;
  float* sum = nullptr;
};

/// Runs the attention of n_tokens tokens (rows [first, first + n_tokens) of `queries`) over a history that is cut into spans.
/// `attend(rows, span, result)` adds one span to a fresh triple; spans are merged in order, so the result does not depend on
/// threads, and a row's result not on the rows beside it. Parallel over heads, tokens and, for few tokens, spans.
/// Writes out [n_tokens, n_heads * value_dim] with stride out_stride.
void attend_spans(const KvShape& shape, const KvQueries& queries, size_t first, size_t n_tokens, size_t n_spans,
                  FunctionRef<void(const SpanRows& rows, size_t span, const kernels::AttentionTriple& result)> attend,
                  float* out, size_t out_stride, const SpanStatistics& statistics = {});

}  // namespace mneme
