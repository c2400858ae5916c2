#include "context/streamed_kv.h"

#include "base/checked_math.h"
#include "base/error.h"
#include "base/parallel.h"
#include "context/attention_spans.h"

namespace mneme {

void StreamedKv::reserve(size_t n_tokens) {
  const uint64_t after = blocks_after(n_tokens);
  if (after == 0 || !trouble_.empty()) return;
  try {
    make_room(after);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::kIo) throw;
    fail_with(e);  // the disk is full: this sequence ends, its neighbours do not
    return;
  }
  begin_call(after);
}

void StreamedKv::extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) {
  const bool given = queries.role == TokenRole::kGiven;
  size_t done = 0;
  while (done < rows.n_tokens && trouble_.empty()) {
    if (given) {
      const size_t n = std::min(rows.n_tokens - done, given_at_once());
      extend_given(rows, queries, done, done + n, out, out_stride);
      done += n;
      continue;
    }
    const size_t n = std::min(rows.n_tokens - done, tail_room());
    const int64_t position = n_tokens_;
    append(rows, done, n);
    for (size_t t = 0; t < n && trouble_.empty() && queries.n_heads > 0; ++t) {
      attend_generated(queries, done + t, position + static_cast<int64_t>(t), out + (done + t) * out_stride);
    }
    done += n;
    seal_if_due();
  }
  end_call();
  if (trouble_.empty()) return;
  for (size_t t = 0; t < rows.n_tokens; ++t)
    std::fill_n(out + t * out_stride, queries.n_heads * shape_.value_dim, 0.0f);
  n_tokens_ += static_cast<int64_t>(rows.n_tokens - done);
}

kernels::AttentionQueries StreamedKv::rows_of(const KvQueries& queries, size_t query_head, size_t first,
                                              size_t n) const {
  return {queries.q + first * queries.q_stride + query_head * shape_.key_dim,
          n,
          queries.q_stride,
          shape_.key_dim,
          shape_.value_dim,
          queries.scale,
          queries.softcap};
}

kernels::AttentionTriple StreamedKv::triple(size_t head, size_t first, float* out, size_t out_stride) {
  const size_t at = head * n_given_ + first;
  return {max_.data() + at, sum_.data() + at, out + first * out_stride + head * shape_.value_dim, out_stride};
}

/// Tokens [begin, end) of a call. What was sealed before the first of them all see; what is sealed on the way, the
/// later ones.
void StreamedKv::extend_given(const KvRows& rows, const KvQueries& all_queries, size_t begin, size_t end,
                              float* all_out, size_t out_stride) {
  KvQueries queries = all_queries;
  queries.q += begin * queries.q_stride;
  float* const out = all_out + begin * out_stride;
  n_given_ = end - begin;
  max_.assign(queries.n_heads * n_given_, -std::numeric_limits<float>::infinity());
  sum_.assign(queries.n_heads * n_given_, 0.0f);
  for (size_t t = 0; t < n_given_; ++t) std::fill_n(out + t * out_stride, queries.n_heads * shape_.value_dim, 0.0f);
  const uint64_t common = n_sealed_;
  const bool asks = queries.n_heads > 0;
  if (asks) attend_blocks(queries, 0, n_given_, 0, common, out, out_stride);
  for (size_t done = 0; done < n_given_;) {
    const size_t n = std::min(n_given_ - done, tail_room());
    append(rows, begin + done, n);
    if (asks) {
      attend_blocks(queries, done, n, common, n_sealed_, out, out_stride);
      attend_tail(queries, done, n, out, out_stride);
    }
    done += n;
    seal_if_due();
  }
}

/// Adds the tail to tokens [first, first + n), the newest of it, and finishes them.
void StreamedKv::attend_tail(const KvQueries& queries, size_t first, size_t n, float* out, size_t out_stride) {
  const size_t group = queries.n_heads / shape_.n_kv_heads, token_tasks = div_up(n, kTaskTokens);
  const int64_t first_query = n_tokens_ - static_cast<int64_t>(n);
  parallel_dynamic(queries.n_heads * token_tasks, [&](size_t task) {
    const size_t query_head = task / token_tasks, begin = task % token_tasks * kTaskTokens;
    const size_t n_rows = std::min(kTaskTokens, n - begin), token = first + begin;
    const SpanRows rows{query_head / group,
                        begin,
                        n_rows,
                        1,
                        rows_of(queries, query_head, token, n_rows)};
    const kernels::AttentionTriple result = triple(query_head, token, out, out_stride);
    for (size_t run = 0; run < tail_.n_runs(tail_first()); ++run) {
      tail_.attend(rows, run, tail_first(), first_query, result);
    }
    std::vector<float> sinks;
    if (queries.sinks != nullptr) sinks.assign(n_rows, queries.sinks[query_head]);
    kernels::finish_attention(result, n_rows, shape_.value_dim, sinks.empty() ? nullptr : sinks.data());
  });
}

}  // namespace mneme
