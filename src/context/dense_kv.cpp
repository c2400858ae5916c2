#include "context/dense_kv.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/parallel.h"
#include "kernels/attention.h"
#include "kernels/vector_ops.h"

namespace mneme {
namespace {

constexpr uint32_t kBlock = DenseKv::kBlockTokens;

size_t element_bytes(DType dtype) { return dtype_info(dtype).block_bytes; }

size_t head_bytes(DType dtype, uint32_t dim) { return size_t{kBlock} * dim * element_bytes(dtype); }

/// Bytes of one block of all heads, rounded to the steps in which memory is handed out.
size_t block_bytes(DType dtype, uint32_t n_heads, uint32_t dim) {
  return round_up(n_heads * head_bytes(dtype, dim), GrowingBuffer::kStepBytes);
}

int64_t slots_for(const KvShape& shape, uint64_t max_tokens, uint32_t max_batch) {
  const uint64_t all = std::max<uint64_t>(1, div_up<uint64_t>(max_tokens, kBlock));
  if (shape.window == 0) return static_cast<int64_t>(all);
  // A batch may start anywhere in a block and needs window - 1 tokens before its first.
  const uint64_t held = div_up<uint64_t>(uint64_t{shape.window} + max_batch, kBlock) + 1;
  return static_cast<int64_t>(std::min(all, held));
}

void store_row(DType dtype, const float* x, size_t n, std::byte* out) {
  const kernels::VectorOps& ops = kernels::vector_ops();
  switch (dtype) {
    case DType::kF16: ops.f32_to_f16(x, n, out); return;
    case DType::kBF16: ops.f32_to_bf16(x, n, out); return;
    default: std::memcpy(out, x, n * sizeof(float)); return;
  }
}

}  // namespace

StateSpec DenseKv::spec(const KvShape& shape, DType dtype, uint64_t max_tokens, uint32_t max_batch) {
  StateSpec spec;
  spec.page_tokens = kBlock;
  spec.bytes_per_page =
      block_bytes(dtype, shape.n_kv_heads, shape.key_dim) + block_bytes(dtype, shape.n_kv_heads, shape.value_dim);
  spec.max_pages = static_cast<uint32_t>(slots_for(shape, max_tokens, max_batch));
  return spec;
}

DenseKv::DenseKv(const KvShape& shape, DType dtype, uint64_t max_tokens, uint32_t max_batch, Ledger& ledger)
    : shape_(shape),
      dtype_(dtype),
      ledger_(ledger),
      max_tokens_(max_tokens),
      max_batch_(max_batch),
      n_slots_(slots_for(shape, max_tokens, max_batch)),
      key_head_bytes_(head_bytes(dtype, shape.key_dim)),
      value_head_bytes_(head_bytes(dtype, shape.value_dim)),
      key_block_bytes_(block_bytes(dtype, shape.n_kv_heads, shape.key_dim)),
      value_block_bytes_(block_bytes(dtype, shape.n_kv_heads, shape.value_dim)),
      keys_(ledger, Tag::kKv, key_block_bytes_ * static_cast<size_t>(n_slots_), "keys"),
      values_(ledger, Tag::kKv, value_block_bytes_ * static_cast<size_t>(n_slots_), "values") {}

const std::byte* DenseKv::key_run(int64_t block, size_t head) const {
  return keys_.data() + slot_of(block) * key_block_bytes_ + head * key_head_bytes_;
}

const std::byte* DenseKv::value_run(int64_t block, size_t head) const {
  return values_.data() + slot_of(block) * value_block_bytes_ + head * value_head_bytes_;
}

void DenseKv::append(const KvRows& rows) {
  if (rows.n_tokens == 0) return;
  const int64_t end = n_tokens_ + static_cast<int64_t>(rows.n_tokens);
  if (static_cast<uint64_t>(end) > max_tokens_) {
    fail(ErrorCode::kContextOverflow, "[append] expected at most {} tokens of context, found {}", max_tokens_, end);
  }
  if (shape_.window != 0 && rows.n_tokens > max_batch_) {
    fail(ErrorCode::kInvalidArgument, "[append] expected at most {} tokens at once, found {}", max_batch_, rows.n_tokens);
  }
  const size_t slots = static_cast<size_t>(std::min<int64_t>(n_slots_, (end + kBlock - 1) / kBlock));
  const size_t values_before = values_.committed();
  values_.grow_to(slots * value_block_bytes_);
  try {
    keys_.grow_to(slots * key_block_bytes_);
  } catch (...) {
    values_.shrink_to(values_before);
    throw;
  }

  const size_t key_row = shape_.key_dim * element_bytes(dtype_), value_row = shape_.value_dim * element_bytes(dtype_);
  const int64_t first = n_tokens_;
  parallel_for(rows.n_tokens, 16, [&](size_t begin, size_t stop) {
    std::vector<float> key(size_t{shape_.n_kv_heads} * shape_.key_dim);
    for (size_t t = begin; t < stop; ++t) {
      const int64_t position = first + static_cast<int64_t>(t);
      const int64_t block = position / kBlock;
      const size_t offset = static_cast<size_t>(position % kBlock);
      std::copy_n(rows.k + t * rows.k_stride, key.size(), key.data());
      if (rows.angles != nullptr) {
        rows.angles->rotate(key.data(), shape_.n_kv_heads, shape_.key_dim, rows.first_angle + t);
      }
      for (size_t head = 0; head < shape_.n_kv_heads; ++head) {
        store_row(dtype_, key.data() + head * shape_.key_dim, shape_.key_dim,
                  const_cast<std::byte*>(key_run(block, head)) + offset * key_row);
        store_row(dtype_, rows.v + t * rows.v_stride + head * shape_.value_dim, shape_.value_dim,
                  const_cast<std::byte*>(value_run(block, head)) + offset * value_row);
      }
    }
  });
  n_tokens_ = end;
  oldest_ = std::max(oldest_, ((end + kBlock - 1) / kBlock - n_slots_) * kBlock);
}

void DenseKv::attend(const KvQueries& queries, float* out, size_t out_stride) const {
  const size_t n_heads = queries.n_heads, group = n_heads / shape_.n_kv_heads;
  const size_t key_dim = shape_.key_dim, value_dim = shape_.value_dim;
  const int64_t first_query = n_tokens_ - static_cast<int64_t>(queries.n_tokens);
  const int64_t window = shape_.window == 0 ? n_tokens_ : shape_.window;

  // A task is one kv head and a few consecutive tokens; their rows (tokens x group) share every key that is read.
  constexpr size_t kTaskRows = 64;
  const size_t task_tokens = std::max<size_t>(1, kTaskRows / group);
  const size_t token_tasks = div_up(queries.n_tokens, task_tokens);

  // Few tasks and many keys (decode): blocks are spread over threads too, and their triples merged in order. The split is
  // into single blocks in either case, so the result does not depend on the way taken.
  const auto run_task = [&](size_t head, size_t first_token, size_t n_tokens, int64_t block_begin, int64_t block_end,
                            const kernels::AttentionTriple& result) {
    const size_t n_rows = n_tokens * group;
    std::vector<float> q(n_rows * key_dim), part(n_rows * (value_dim + 2));
    std::vector<uint32_t> range(2 * n_rows);
    for (size_t t = 0; t < n_tokens; ++t) {
      std::copy_n(queries.q + (first_token + t) * queries.q_stride + head * group * key_dim, group * key_dim,
                  q.data() + t * group * key_dim);
    }
    const kernels::AttentionQueries rows{q.data(), n_rows,        key_dim,         key_dim,
                                         value_dim, queries.scale, queries.softcap};
    const kernels::AttentionTriple fresh{part.data(), part.data() + n_rows, part.data() + 2 * n_rows, value_dim};
    for (int64_t block = block_begin; block < block_end; ++block) {
      const int64_t start = block * kBlock;
      for (size_t r = 0; r < n_rows; ++r) {
        const int64_t position = first_query + static_cast<int64_t>(first_token + r / group);
        const int64_t last = std::clamp<int64_t>(position + 1 - start, 0, kBlock);
        range[r] = static_cast<uint32_t>(std::clamp<int64_t>(position + 1 - window - start, 0, last));
        range[n_rows + r] = static_cast<uint32_t>(last);
      }
      const kernels::AttentionKeys keys{key_run(block, head),
                                        value_run(block, head),
                                        key_dim * element_bytes(dtype_),
                                        value_dim * element_bytes(dtype_),
                                        dtype_,
                                        range.data(),
                                        range.data() + n_rows};
      std::fill_n(fresh.max, n_rows, -std::numeric_limits<float>::infinity());
      std::fill_n(fresh.sum, n_rows * (value_dim + 1), 0.0f);
      kernels::attend(rows, keys, fresh);
      kernels::merge_attention(fresh, n_rows, value_dim, result);
    }
  };
  const auto block_range = [&](size_t first_token, size_t n_tokens) {
    const int64_t low = std::max<int64_t>(0, first_query + static_cast<int64_t>(first_token) + 1 - window);
    const int64_t high = first_query + static_cast<int64_t>(first_token + n_tokens) - 1;
    return std::pair(low / kBlock, high / kBlock + 1);
  };
  const auto finish = [&](size_t head, size_t first_token, size_t n_tokens, const kernels::AttentionTriple& result) {
    std::vector<float> sinks;
    for (size_t r = 0; queries.sinks != nullptr && r < n_tokens * group; ++r) {
      sinks.push_back(queries.sinks[head * group + r % group]);
    }
    kernels::finish_attention(result, n_tokens * group, value_dim, sinks.empty() ? nullptr : sinks.data());
    for (size_t t = 0; t < n_tokens; ++t) {
      for (size_t g = 0; g < group; ++g) {
        std::copy_n(result.out + (t * group + g) * result.out_stride, value_dim,
                    out + (first_token + t) * out_stride + (head * group + g) * value_dim);
      }
    }
  };

  struct Result {
    std::vector<float> storage;
    kernels::AttentionTriple triple;
    Result(size_t n_rows, size_t dim) : storage(n_rows * (dim + 2)) {
      triple = {storage.data(), storage.data() + n_rows, storage.data() + 2 * n_rows, dim};
      std::fill_n(triple.max, n_rows, -std::numeric_limits<float>::infinity());
    }
  };

  const size_t n_tasks = shape_.n_kv_heads * token_tasks;
  const auto [decode_begin, decode_end] = block_range(0, std::min(task_tokens, queries.n_tokens));
  const int64_t decode_blocks = decode_end - decode_begin;
  if (token_tasks == 1 && decode_blocks > 4 && n_tasks < 4 * static_cast<size_t>(n_threads())) {
    std::vector<Result> parts;
    const size_t n_rows = queries.n_tokens * group;
    const size_t n_blocks = static_cast<size_t>(decode_blocks);
    parts.reserve(shape_.n_kv_heads * n_blocks);
    for (size_t i = 0; i < shape_.n_kv_heads * n_blocks; ++i) parts.emplace_back(n_rows, value_dim);
    parallel_for(parts.size(), 1, [&, decode_begin = decode_begin](size_t begin, size_t stop) {
      for (size_t i = begin; i < stop; ++i) {
        const int64_t block = decode_begin + static_cast<int64_t>(i % n_blocks);
        run_task(i / n_blocks, 0, queries.n_tokens, block, block + 1, parts[i].triple);
      }
    });
    for (size_t head = 0; head < shape_.n_kv_heads; ++head) {
      Result result(n_rows, value_dim);
      for (size_t b = 0; b < n_blocks; ++b) {
        kernels::merge_attention(parts[head * n_blocks + b].triple, n_rows, value_dim, result.triple);
      }
      finish(head, 0, queries.n_tokens, result.triple);
    }
    return;
  }
  parallel_dynamic(n_tasks, [&](size_t task) {
    const size_t head = task % shape_.n_kv_heads;
    // Late tokens see most keys: start with them so that the threads end together.
    const size_t first_token = (token_tasks - 1 - task / shape_.n_kv_heads) * task_tokens;
    const size_t n_tokens = std::min(task_tokens, queries.n_tokens - first_token);
    const auto [block_begin, block_end] = block_range(first_token, n_tokens);
    Result result(n_tokens * group, value_dim);
    run_task(head, first_token, n_tokens, block_begin, block_end, result.triple);
    finish(head, first_token, n_tokens, result.triple);
  });
}

bool DenseKv::truncate(int64_t n_tokens) {
  if (n_tokens < 0 || n_tokens > n_tokens_) return false;
  // Attention at position n_tokens needs the window before it; a ring may have overwritten that already.
  const int64_t needed = shape_.window == 0 ? 0 : std::max<int64_t>(0, n_tokens - shape_.window + 1);
  if (needed < oldest_) return false;
  n_tokens_ = n_tokens;
  const size_t slots = static_cast<size_t>(std::min<int64_t>(n_slots_, (n_tokens + kBlock - 1) / kBlock));
  if (oldest_ == 0) {  // no wrap-around yet: the tail slots are free
    keys_.shrink_to(slots * key_block_bytes_);
    values_.shrink_to(slots * value_block_bytes_);
  }
  return true;
}

std::unique_ptr<LayerState> DenseKv::deep_copy() const {
  auto copy = std::make_unique<DenseKv>(shape_, dtype_, max_tokens_, max_batch_, ledger_);
  copy->keys_.grow_to(keys_.committed());
  copy->values_.grow_to(values_.committed());
  std::memcpy(copy->keys_.data(), keys_.data(), keys_.committed());
  std::memcpy(copy->values_.data(), values_.data(), values_.committed());
  copy->n_tokens_ = n_tokens_;
  copy->oldest_ = oldest_;
  return copy;
}

}  // namespace mneme
