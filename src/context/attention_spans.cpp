#include "context/attention_spans.h"

#include <algorithm>
#include <limits>

#include "base/checked_math.h"
#include "base/parallel.h"

namespace mneme {
namespace {

/// A triple and its memory.
class Result {
 public:
  Result(size_t n_rows, size_t dim) : n_rows_(n_rows), dim_(dim), storage_(n_rows * (dim + 2)) { clear(); }

  kernels::AttentionTriple triple() {
    return {storage_.data(), storage_.data() + n_rows_, storage_.data() + 2 * n_rows_, dim_};
  }
  void clear() {
    std::fill(storage_.begin(), storage_.end(), 0.0f);
    std::fill_n(storage_.begin(), n_rows_, -std::numeric_limits<float>::infinity());
  }

 private:
  size_t n_rows_, dim_;
  std::vector<float> storage_;
};

}  // namespace

void attend_spans(const KvShape& shape, const KvQueries& queries, size_t first, size_t n_tokens, size_t n_spans,
                  FunctionRef<void(const SpanRows& rows, size_t span, const kernels::AttentionTriple& result)> attend,
                  float* out, size_t out_stride, const SpanStatistics& statistics) {
  if (queries.n_heads == 0) return;
  const size_t group = queries.n_heads / shape.n_kv_heads;
  // A task is one kv head and a few consecutive tokens; their rows (tokens x group) share every key that is read.
  constexpr size_t kTaskRows = 64;
  const size_t task_tokens = std::max<size_t>(1, kTaskRows / group);
  const size_t token_tasks = div_up(n_tokens, task_tokens);

  const auto with_rows = [&](size_t head, size_t first_token, size_t n, auto&& body) {
    std::vector<float> q(n * group * shape.key_dim);
    for (size_t t = 0; t < n; ++t) {
      std::copy_n(queries.q + (first + first_token + t) * queries.q_stride + head * group * shape.key_dim,
                  group * shape.key_dim, q.data() + t * group * shape.key_dim);
    }
    body(SpanRows{head, first_token, n, group,
                  {q.data(), n * group, shape.key_dim, shape.key_dim, shape.value_dim, queries.scale, queries.softcap}});
  };
  const auto finish = [&](const SpanRows& rows, const kernels::AttentionTriple& result) {
    std::vector<float> sinks;
    for (size_t r = 0; queries.sinks != nullptr && r < rows.queries.n_rows; ++r) {
      sinks.push_back(queries.sinks[rows.head * group + r % group]);
    }
    for (size_t r = 0; statistics.max != nullptr && r < rows.queries.n_rows; ++r) {
      const size_t at = (rows.first_token + r / group) * queries.n_heads + rows.head * group + r % group;
      statistics.max[at] = result.max[r];
      statistics.sum[at] = result.sum[r];
    }
    kernels::finish_attention(result, rows.queries.n_rows, shape.value_dim, sinks.empty() ? nullptr : sinks.data());
    for (size_t r = 0; r < rows.queries.n_rows; ++r) {
      std::copy_n(result.out + r * result.out_stride, shape.value_dim,
                  out + (rows.first_token + r / group) * out_stride + (rows.head * group + r % group) * shape.value_dim);
    }
  };

  const size_t n_tasks = shape.n_kv_heads * token_tasks;
  if (token_tasks == 1 && n_spans > 4 && n_tasks < 4 * static_cast<size_t>(n_threads())) {
    // Few tasks and many keys (decode): spans are spread over threads too.
    const size_t n_rows = n_tokens * group;
    std::vector<Result> parts(shape.n_kv_heads * n_spans, Result(n_rows, shape.value_dim));
    parallel_for(parts.size(), 1, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end;) {
        const size_t head = i / n_spans, last = std::min(end, (head + 1) * n_spans);
        with_rows(head, 0, n_tokens, [&](const SpanRows& rows) {
          for (; i < last; ++i) attend(rows, i % n_spans, parts[i].triple());
        });
      }
    });
    for (size_t head = 0; head < shape.n_kv_heads; ++head) {
      Result result(n_rows, shape.value_dim);
      for (size_t span = 0; span < n_spans; ++span) {
        kernels::merge_attention(parts[head * n_spans + span].triple(), n_rows, shape.value_dim, result.triple());
      }
      with_rows(head, 0, n_tokens, [&](const SpanRows& rows) { finish(rows, result.triple()); });
    }
    return;
  }
  parallel_dynamic(n_tasks, [&](size_t task) {
    // Late tokens see most keys: start with them so that the threads end together.
    const size_t first_token = (token_tasks - 1 - task / shape.n_kv_heads) * task_tokens;
    const size_t n = std::min(task_tokens, n_tokens - first_token);
    with_rows(task % shape.n_kv_heads, first_token, n, [&](const SpanRows& rows) {
      Result result(n * group, shape.value_dim), part(n * group, shape.value_dim);
      for (size_t span = 0; span < n_spans; ++span) {
        part.clear();
        attend(rows, span, part.triple());
        kernels::merge_attention(part.triple(), n * group, shape.value_dim, result.triple());
      }
      finish(rows, result.triple());
    });
  });
}

}  // namespace mneme
