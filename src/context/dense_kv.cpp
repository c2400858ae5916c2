#include "context/dense_kv.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/parallel.h"
#include "context/attention_spans.h"
#include "kernels/attention.h"
#include "kernels/vector_ops.h"

namespace mneme {
namespace {

constexpr uint32_t kBlock = DenseKv::kBlockTokens;
static_assert(kBlock == kPageTokens, "pages of saved state are blocks");
/// The next block is mapped while tokens are computed when so many or fewer are left in one.
constexpr uint64_t kAheadTokens = 16;

size_t element_bytes(DType dtype) {
  return dtype_info(dtype).block_bytes;
}

size_t head_bytes(DType dtype, uint32_t dim) {
  return size_t{kBlock} * dim * element_bytes(dtype);
}

/// Bytes of one block of all heads, in whole pages.
size_t block_bytes(DType dtype, uint32_t n_heads, uint32_t dim) {
  return round_up<size_t>(std::max<size_t>(1, n_heads * head_bytes(dtype, dim)), 4096);
}

int64_t slots_for(const KvShape& shape, uint64_t max_tokens, uint32_t max_batch) {
  const uint64_t all = std::max<uint64_t>(1, div_up<uint64_t>(max_tokens, kBlock));
  if (shape.window == 0) return static_cast<int64_t>(all);
  // A batch may start anywhere in a block and needs window - 1 tokens before its first.
  const uint64_t held = div_up<uint64_t>(uint64_t{shape.window} + max_batch, kBlock) + 1;
  return static_cast<int64_t>(std::min(all, held));
}

}  // namespace

void store_row(DType dtype, const float* x, size_t n, std::byte* out) {
  const kernels::VectorOps& ops = kernels::vector_ops();
  switch (dtype) {
    case DType::kF16:
      ops.f32_to_f16(x, n, out);
      return;
    case DType::kBF16:
      ops.f32_to_bf16(x, n, out);
      return;
    default:
      std::memcpy(out, x, n * sizeof(float));
      return;
  }
}

StateSpec DenseKv::spec(const KvShape& shape, DType dtype, uint64_t max_tokens, uint32_t max_batch, uint32_t sinks) {
  const uint64_t slot_bytes =
      block_bytes(dtype, shape.n_kv_heads, shape.key_dim) + block_bytes(dtype, shape.n_kv_heads, shape.value_dim);
  const auto n_slots = static_cast<uint64_t>(slots_for(shape, max_tokens, max_batch));
  const uint64_t sink_bytes = sinks > 0 ? OpenTail::reserved_bytes(shape, sinks) : 0;
  return StateSpec(
      [=](uint64_t tokens) { return sink_bytes + slot_bytes * std::min(n_slots, div_up<uint64_t>(tokens, kBlock)); });
}

DenseKv::DenseKv(const KvShape& shape, DType dtype, uint64_t max_tokens, uint32_t max_batch, Ledger& ledger,
                 uint32_t sinks)
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
      keys_(ledger, Tag::kKv, key_block_bytes_, key_block_bytes_ * static_cast<size_t>(n_slots_), "keys"),
      values_(ledger, Tag::kKv, value_block_bytes_, value_block_bytes_ * static_cast<size_t>(n_slots_), "values"),
      n_sinks_(sinks) {
  if (sinks > 0) sinks_.emplace(shape, sinks, ledger);
}

const std::byte* DenseKv::key_run(int64_t block, size_t head) const {
  return keys_.data() + slot_of(block) * key_block_bytes_ + head * key_head_bytes_;
}

const std::byte* DenseKv::value_run(int64_t block, size_t head) const {
  return values_.data() + slot_of(block) * value_block_bytes_ + head * value_head_bytes_;
}

void DenseKv::reserve(size_t n_tokens) {
  const uint64_t end = static_cast<uint64_t>(n_tokens_) + n_tokens;
  if (end > max_tokens_) {
    fail(ErrorCode::kContextOverflow, "[append] expected at most {} tokens of context, found {}", max_tokens_, end);
  }
  if (shape_.window != 0 && n_tokens > max_batch_) {
    fail(ErrorCode::kInvalidArgument, "[append] expected at most {} tokens at once, found {}", max_batch_, n_tokens);
  }
  grow_for(static_cast<int64_t>(end));
  const size_t slots = std::min<size_t>(static_cast<size_t>(n_slots_), div_up<size_t>(end + kAheadTokens, kBlock));
  keys_.map_ahead(slots * key_block_bytes_);
  values_.map_ahead(slots * value_block_bytes_);
}

void DenseKv::grow_for(int64_t n_tokens) {
  const size_t slots = std::min(static_cast<size_t>(n_slots_), div_up<size_t>(static_cast<size_t>(n_tokens), kBlock));
  const size_t values_before = values_.committed();
  values_.grow_to(slots * value_block_bytes_);
  try {
    keys_.grow_to(slots * key_block_bytes_);
  } catch (...) {
    values_.shrink_to(values_before);
    throw;
  }
}

void DenseKv::extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) {
  append(rows);
  attend(queries, rows.n_tokens, out, out_stride);
}

void DenseKv::append(const KvRows& rows) {
  const int64_t end = n_tokens_ + static_cast<int64_t>(rows.n_tokens);
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
  if (sinks_ && sinks_->size() < n_sinks_) {
    sinks_->append(rows, 0, std::min<size_t>(rows.n_tokens, n_sinks_ - sinks_->size()));
  }
  advance_to(end);
}

void DenseKv::advance_to(int64_t n_tokens) {
  n_tokens_ = n_tokens;
  oldest_ = std::max(oldest_, ((n_tokens + kBlock - 1) / kBlock - n_slots_) * kBlock);
}

/// The token at position n_tokens will need those from here on.
int64_t DenseKv::oldest_needed(int64_t n_tokens) const {
  return shape_.window == 0 ? 0 : std::max<int64_t>(0, n_tokens - shape_.window + 1);
}

void DenseKv::attend(const KvQueries& queries, size_t n_query_tokens, float* out, size_t out_stride) const {
  const size_t group = queries.n_heads / shape_.n_kv_heads;
  const int64_t first_query = n_tokens_ - static_cast<int64_t>(n_query_tokens);
  const int64_t window = shape_.window == 0 ? n_tokens_ : shape_.window;
  const int64_t first_block = std::max<int64_t>(0, first_query + 1 - window) / kBlock;
  const int64_t last_block = (n_tokens_ - 1) / kBlock;

  // A span is a block; sinks come first when there are some outside of the first token's window.
  const size_t sink_spans = sinks_ && first_query + static_cast<int64_t>(n_query_tokens) > window ? 1 : 0;
  const auto attend_span = [&](const SpanRows& rows, size_t span, const kernels::AttentionTriple& result) {
    const size_t n_rows = rows.queries.n_rows;
    std::vector<uint32_t> range(2 * n_rows);
    const auto position_of = [&](size_t r) { return first_query + static_cast<int64_t>(rows.first_token + r / group); };
    if (span < sink_spans) {
      for (size_t r = 0; r < n_rows; ++r) {
        range[n_rows + r] = static_cast<uint32_t>(std::clamp<int64_t>(position_of(r) + 1 - window, 0, n_sinks_));
      }
      kernels::attend(rows.queries,
                      {sinks_->key(rows.head, 0), sinks_->value(rows.head, 0), sinks_->key_row_bytes(),
                       sinks_->value_row_bytes(), DType::kF16, range.data(), range.data() + n_rows},
                      result);
      return;
    }
    const int64_t block = first_block + static_cast<int64_t>(span - sink_spans), start = block * kBlock;
    for (size_t r = 0; r < n_rows; ++r) {
      const int64_t position = position_of(r);
      const int64_t last = std::clamp<int64_t>(position + 1 - start, 0, kBlock);
      range[r] = static_cast<uint32_t>(std::clamp<int64_t>(position + 1 - window - start, 0, last));
      range[n_rows + r] = static_cast<uint32_t>(last);
    }
    const size_t element = element_bytes(dtype_);
    const bool more = block < last_block;
    kernels::attend(rows.queries,
                    {key_run(block, rows.head), value_run(block, rows.head), shape_.key_dim * element,
                     shape_.value_dim * element, dtype_, range.data(), range.data() + n_rows,
                     more ? key_run(block + 1, rows.head) : nullptr, more ? value_run(block + 1, rows.head) : nullptr},
                    result);
  };
  const size_t n_spans = sink_spans + static_cast<size_t>(last_block - first_block + 1);
  attend_spans(shape_, queries, 0, n_query_tokens, n_spans, attend_span, out, out_stride);
}

bool DenseKv::truncate(int64_t n_tokens) {
  if (n_tokens < 0 || n_tokens > n_tokens_) return false;
  if (oldest_needed(n_tokens) < oldest_) return false;  // a ring has overwritten it already
  if (n_tokens % kBlock != 0 && shares_pages()) {       // what comes next is written into this block
    try {
      keys_.make_private(slot_of(n_tokens / kBlock));
      values_.make_private(slot_of(n_tokens / kBlock));
    } catch (const Error&) {
      return false;
    }
  }
  n_tokens_ = n_tokens;
  if (sinks_ && static_cast<size_t>(n_tokens) < sinks_->size()) sinks_->truncate(static_cast<size_t>(n_tokens));
  const size_t slots = static_cast<size_t>(std::min<int64_t>(n_slots_, (n_tokens + kBlock - 1) / kBlock));
  if (oldest_ == 0) {  // no wrap-around yet: the tail slots are free
    keys_.shrink_to(slots * key_block_bytes_);
    values_.shrink_to(slots * value_block_bytes_);
  }
  return true;
}

std::unique_ptr<LayerState> DenseKv::copy(CopyScope&) const {
  auto copy = std::make_unique<DenseKv>(shape_, dtype_, max_tokens_, max_batch_, ledger_, n_sinks_);
  if (sinks_) copy->sinks_->copy_from(*sinks_);
  const auto copy_range = [&](const MappedRange& from, MappedRange& to) {
    const size_t n_shared = shares_pages() ? static_cast<size_t>(n_tokens_ / kBlock) : 0;
    for (size_t unit = 0; unit < n_shared; ++unit) {
      if (const PageRun run = from.share(unit)) {
        to.append(run);
      } else {
        to.grow_to((unit + 1) * to.unit());
        std::memcpy(to.data() + unit * to.unit(), from.data() + unit * to.unit(), to.unit());
      }
    }
    to.grow_to(from.committed());
    const size_t done = n_shared * to.unit();
    if (from.committed() > done) std::memcpy(to.data() + done, from.data() + done, from.committed() - done);
  };
  copy_range(keys_, copy->keys_);
  copy_range(values_, copy->values_);
  copy->n_tokens_ = n_tokens_;
  copy->oldest_ = oldest_;
  return copy;
}

PageRange DenseKv::sealed_pages() const {
  return {oldest_ / kBlock, n_tokens_ / kBlock};
}

void DenseKv::save_page(int64_t page, StateWriter& out) const {
  out.write({key_run(page, 0), shape_.n_kv_heads * key_head_bytes_});
  out.write({value_run(page, 0), shape_.n_kv_heads * value_head_bytes_});
}

bool DenseKv::save_rest(int64_t n_tokens, StateWriter& out) const {
  const size_t rows = static_cast<size_t>(n_tokens % kBlock);
  if (n_tokens > n_tokens_ || (rows > 0 && n_tokens - static_cast<int64_t>(rows) < oldest_)) return false;
  if (sinks_ && static_cast<int64_t>(sinks_->size()) > n_tokens) return false;
  out.put(n_tokens);
  if (sinks_) sinks_->save(out);
  for (uint32_t head = 0; head < shape_.n_kv_heads && rows > 0; ++head) {
    out.write({key_run(n_tokens / kBlock, head), rows * (key_head_bytes_ / kBlock)});
  }
  for (uint32_t head = 0; head < shape_.n_kv_heads && rows > 0; ++head) {
    out.write({value_run(n_tokens / kBlock, head), rows * (value_head_bytes_ / kBlock)});
  }
  return true;
}

int64_t DenseKv::first_page(int64_t n_tokens) const {
  if (shape_.window == 0) return 0;
  return std::max<int64_t>(0, (n_tokens + kBlock - 1) / kBlock - n_slots_);
}

void DenseKv::check_next_page(int64_t page) const {
  const bool first_of_ring = n_tokens_ == 0 && shape_.window != 0;
  if (page < 0 || page > INT64_MAX / kBlock - 1 || (!first_of_ring && page * kBlock != n_tokens_)) {
    fail(ErrorCode::kCorruptData, "[load keys and values] expected page {}, found page {}", n_tokens_ / kBlock, page);
  }
  const int64_t end = (page + 1) * kBlock;
  if (static_cast<uint64_t>(end) > max_tokens_) {
    fail(ErrorCode::kContextOverflow, "[load keys and values] expected at most {} tokens of context, found {}",
         max_tokens_, end);
  }
}

void DenseKv::load_page(int64_t page, StateReader& in) {
  check_next_page(page);
  const int64_t end = (page + 1) * kBlock;
  grow_for(end);
  if (n_tokens_ == 0) oldest_ = page * kBlock;
  in.copy_to(const_cast<std::byte*>(key_run(page, 0)), shape_.n_kv_heads * key_head_bytes_);
  in.copy_to(const_cast<std::byte*>(value_run(page, 0)), shape_.n_kv_heads * value_head_bytes_);
  in.finish();
  advance_to(end);
}

SharedPage DenseKv::share_page(int64_t page) const {
  if (!shares_pages()) return {};
  PageRun keys = keys_.share(slot_of(page)), values = values_.share(slot_of(page));
  if (!keys || !values) return {};
  return {std::move(keys), std::move(values)};
}

void DenseKv::load_shared_page(int64_t page, const SharedPage& shared) {
  if (!shares_pages() || shared.size() != 2 || shared[0].bytes() != key_block_bytes_ ||
      shared[1].bytes() != value_block_bytes_) {
    fail(ErrorCode::kCorruptData, "[load keys and values] expected a block of keys and one of values, found others");
  }
  check_next_page(page);
  const size_t before = static_cast<size_t>(page) * key_block_bytes_;
  keys_.append(shared[0]);
  try {
    values_.append(shared[1]);
  } catch (...) {
    keys_.shrink_to(before);
    throw;
  }
  advance_to((page + 1) * kBlock);
}

void DenseKv::load_rest(StateReader& in) {
  const int64_t n_tokens = in.get<int64_t>();
  const size_t rows = static_cast<size_t>(n_tokens % kBlock);
  if (n_tokens < 0 || n_tokens / kBlock != n_tokens_ / kBlock || oldest_needed(n_tokens) < oldest_) {
    fail(ErrorCode::kCorruptData, "[load keys and values] expected the pages of {} tokens, found tokens {} to {}",
         n_tokens, oldest_, n_tokens_);
  }
  if (static_cast<uint64_t>(n_tokens) > max_tokens_) {
    fail(ErrorCode::kContextOverflow, "[load keys and values] expected at most {} tokens of context, found {}",
         max_tokens_, n_tokens);
  }
  grow_for(n_tokens);
  if (sinks_) {
    sinks_->load(in);
    if (static_cast<int64_t>(sinks_->size()) != std::min<int64_t>(n_sinks_, n_tokens)) {
      fail(ErrorCode::kCorruptData, "[load keys and values] expected {} first tokens, found {}",
           std::min<int64_t>(n_sinks_, n_tokens), sinks_->size());
    }
  }
  for (uint32_t head = 0; head < shape_.n_kv_heads && rows > 0; ++head) {
    in.copy_to(const_cast<std::byte*>(key_run(n_tokens / kBlock, head)), rows * (key_head_bytes_ / kBlock));
  }
  for (uint32_t head = 0; head < shape_.n_kv_heads && rows > 0; ++head) {
    in.copy_to(const_cast<std::byte*>(value_run(n_tokens / kBlock, head)), rows * (value_head_bytes_ / kBlock));
  }
  in.finish();
  advance_to(n_tokens);
}

}  // namespace mneme
