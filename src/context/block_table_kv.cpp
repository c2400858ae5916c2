#include "context/block_table_kv.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/parallel.h"
#include "base/philox.h"
#include "context/attention_spans.h"
#include "context/dense_kv.h"
#include "kernels/attention.h"

namespace mneme {
namespace {

/// Keys of a tile of the kernels, and tokens after which partial results are merged in DenseKv.
constexpr uint32_t kTile = 64, kSpan = DenseKv::kBlockTokens;

}  // namespace

BlockArena::BlockArena(const KvShape& shape, DType dtype, uint32_t block_tokens, uint64_t max_tokens, Ledger& ledger,
                       uint64_t seed)
    : shape_(shape), dtype_(dtype), block_tokens_(block_tokens) {
  const bool fits =
      block_tokens > 0 && kSpan % block_tokens == 0 && (kTile % block_tokens == 0 || block_tokens % kTile == 0);
  if (!fits) {
    fail(ErrorCode::kInvalidArgument, "[block table] expected blocks of 16, 32, 64, 128 or 256 tokens, found {}",
         block_tokens);
  }
  const size_t element = dtype_info(dtype).block_bytes;
  key_bytes_ = block_tokens * shape.key_dim * element;
  value_bytes_ = block_tokens * shape.value_dim * element;
  block_bytes_ = shape.n_kv_heads * (key_bytes_ + value_bytes_);
  const size_t n = div_up<size_t>(max_tokens, block_tokens);
  memory_ = Buffer(ledger, Tag::kKv, n * block_bytes_, "blocks of a block table");
  free_.resize(n);
  std::iota(free_.begin(), free_.end(), 0u);
  PhiloxStream random(seed);
  for (size_t i = n; i > 1; --i) std::swap(free_[i - 1], free_[random.next_below(static_cast<uint32_t>(i))]);
}

uint32_t BlockArena::take() {
  const std::lock_guard lock(mutex_);
  if (free_.empty()) fail(ErrorCode::kOutOfBudget, "[block table] expected a free block, found none");
  const uint32_t block = free_.back();
  free_.pop_back();
  return block;
}

void BlockArena::give_back(uint32_t block) {
  const std::lock_guard lock(mutex_);
  free_.push_back(block);
}

BlockTableKv::BlockTableKv(std::shared_ptr<BlockArena> arena, uint64_t max_tokens)
    : arena_(std::move(arena)), max_tokens_(max_tokens) {}

BlockTableKv::~BlockTableKv() {
  for (const uint32_t block : table_) arena_->give_back(block);
}

void BlockTableKv::reserve(size_t n_tokens) {
  const uint64_t end = static_cast<uint64_t>(n_tokens_) + n_tokens;
  if (end > max_tokens_) {
    fail(ErrorCode::kContextOverflow, "[append] expected at most {} tokens of context, found {}", max_tokens_, end);
  }
  const size_t before = table_.size();
  try {
    while (table_.size() * arena_->block_tokens() < end) table_.push_back(arena_->take());
  } catch (...) {
    for (; table_.size() > before; table_.pop_back()) arena_->give_back(table_.back());
    throw;
  }
}

void BlockTableKv::append(const KvRows& rows) {
  const KvShape& shape = arena_->shape();
  const size_t element = dtype_info(arena_->dtype()).block_bytes, block_tokens = arena_->block_tokens();
  parallel_for(rows.n_tokens, 16, [&](size_t begin, size_t stop) {
    std::vector<float> key(size_t{shape.n_kv_heads} * shape.key_dim);
    for (size_t t = begin; t < stop; ++t) {
      const size_t position = static_cast<size_t>(n_tokens_) + t;
      const uint32_t block = table_[position / block_tokens];
      const size_t row = position % block_tokens;
      std::copy_n(rows.k + t * rows.k_stride, key.size(), key.data());
      if (rows.angles != nullptr) {
        rows.angles->rotate(key.data(), shape.n_kv_heads, shape.key_dim, rows.first_angle + t);
      }
      for (size_t head = 0; head < shape.n_kv_heads; ++head) {
        store_row(arena_->dtype(), key.data() + head * shape.key_dim, shape.key_dim,
                  arena_->keys(block, head) + row * shape.key_dim * element);
        store_row(arena_->dtype(), rows.v + t * rows.v_stride + head * shape.value_dim, shape.value_dim,
                  arena_->values(block, head) + row * shape.value_dim * element);
      }
    }
  });
  n_tokens_ += static_cast<int64_t>(rows.n_tokens);
}

void BlockTableKv::extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) {
  append(rows);
  const KvShape& shape = arena_->shape();
  const size_t group = queries.n_heads / shape.n_kv_heads, block_tokens = arena_->block_tokens();
  const int64_t first_query = n_tokens_ - static_cast<int64_t>(rows.n_tokens);
  const size_t element = dtype_info(arena_->dtype()).block_bytes;
  const size_t key_row = shape.key_dim * element, value_row = shape.value_dim * element;
  const size_t tile = std::max<size_t>(kTile, block_tokens);
  const auto attend_span = [&](const SpanRows& span_rows, size_t span, const kernels::AttentionTriple& result) {
    const size_t n_rows = span_rows.queries.n_rows;
    std::vector<uint32_t> first(n_rows, 0), last(n_rows);
    std::vector<std::byte> gathered;
    const size_t span_end = std::min<size_t>((span + 1) * kSpan, static_cast<size_t>(n_tokens_));
    for (size_t start = span * kSpan; start < span_end; start += tile) {
      bool seen = false;
      for (size_t r = 0; r < n_rows; ++r) {
        const int64_t position = first_query + static_cast<int64_t>(span_rows.first_token + r / group);
        last[r] = static_cast<uint32_t>(
            std::clamp<int64_t>(position + 1 - static_cast<int64_t>(start), 0, static_cast<int64_t>(tile)));
        seen |= last[r] > 0;
      }
      if (!seen) break;
      const std::byte *keys, *values;
      if (block_tokens >= tile) {
        const uint32_t block = table_[start / block_tokens];
        keys = arena_->keys(block, span_rows.head);
        values = arena_->values(block, span_rows.head);
      } else {
        gathered.resize(tile * (key_row + value_row));
        std::byte* const gathered_values = gathered.data() + tile * key_row;
        for (size_t at = start; at < std::min(span_end, start + tile); at += block_tokens) {
          const uint32_t block = table_[at / block_tokens];
          std::memcpy(gathered.data() + (at - start) * key_row, arena_->keys(block, span_rows.head),
                      block_tokens * key_row);
          std::memcpy(gathered_values + (at - start) * value_row, arena_->values(block, span_rows.head),
                      block_tokens * value_row);
        }
        keys = gathered.data();
        values = gathered_values;
      }
      kernels::attend(span_rows.queries, {keys, values, key_row, value_row, arena_->dtype(), first.data(), last.data()},
                      result);
    }
  };
  attend_spans(shape, queries, 0, rows.n_tokens, div_up<size_t>(static_cast<size_t>(n_tokens_), kSpan), attend_span,
               out, out_stride);
}

bool BlockTableKv::truncate(int64_t n_tokens) {
  if (n_tokens < 0 || n_tokens > n_tokens_) return false;
  n_tokens_ = n_tokens;
  const size_t n_blocks = div_up<size_t>(static_cast<size_t>(n_tokens), arena_->block_tokens());
  for (; table_.size() > n_blocks; table_.pop_back()) arena_->give_back(table_.back());
  return true;
}

std::unique_ptr<LayerState> BlockTableKv::copy(CopyScope&) const {
  fail(ErrorCode::kUnsupported, "[copy] a block table is not copied");
}

void BlockTableKv::load_rest(StateReader&) {
  fail(ErrorCode::kUnsupported, "[load] a block table is not loaded");
}

}  // namespace mneme
