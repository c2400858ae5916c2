#include "context/coded_kv.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/parallel.h"
#include "context/attention_spans.h"
#include "kernels/vector_ops.h"

namespace mneme {
namespace {

using kernels::CodedMatrix;
using kernels::kBlockTokens;

/// Blocks of one span: the unit in which attention is spread over threads.
constexpr size_t kSpanBlocks = 4;
constexpr int64_t kPageBlocks = kPageTokens / static_cast<int64_t>(kBlockTokens);

uint64_t sealed_blocks(uint64_t n_tokens, uint32_t residual) {
  return n_tokens > residual ? (n_tokens - residual) / kBlockTokens : 0;
}

size_t tail_capacity(const KvChoices& choices, uint64_t max_tokens) {
  return std::min<uint64_t>(max_tokens, uint64_t{choices.residual} + kBlockTokens);
}

}  // namespace

/// Sizes of the parts of one block of one head, in this order: channel list, keys, values.
struct CodedKv::Layout {
  size_t n_channels;         ///< Stored channels of a key.
  size_t list_bytes = 0;
  bool keys_coded, values_coded;
  CodedMatrix keys, values;
  size_t key_bytes, value_bytes, head_bytes, block_bytes;
};

CodedKv::Layout CodedKv::layout_of(const KvShape& shape, const KvChoices& choices) {
  Layout layout;
  layout.n_channels = shape.key_dim;
  if ((choices.prune > 0 || choices.sort) && shape.key_dim > 256) {
    fail(ErrorCode::kUnsupported, "[kv policy] expected heads of at most 256 channels to prune or sort, found {}",
         shape.key_dim);
  }
  if (choices.prune > 0) {
    const auto dropped = static_cast<size_t>(std::lround(choices.prune * static_cast<float>(shape.key_dim)));
    layout.n_channels = std::max<size_t>(1, shape.key_dim - dropped);
    layout.list_bytes = layout.n_channels;
  }
  layout.keys_coded = choices.keys.coded;
  layout.values_coded = choices.values.coded;
  if (layout.keys_coded) layout.keys = CodedMatrix(choices.keys.format, kBlockTokens, layout.n_channels);
  if (layout.values_coded) layout.values = CodedMatrix(choices.values.format, shape.value_dim, kBlockTokens);
  layout.key_bytes = layout.keys_coded ? layout.keys.bytes() : kBlockTokens * layout.n_channels * 2;
  layout.value_bytes = layout.values_coded ? layout.values.bytes() : kBlockTokens * shape.value_dim * 2;
  layout.head_bytes = layout.list_bytes + layout.key_bytes + layout.value_bytes;
  layout.block_bytes = layout.head_bytes * shape.n_kv_heads;
  return layout;
}

StateSpec CodedKv::spec(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens) {
  uint64_t fixed = OpenTail::reserved_bytes(shape, tail_capacity(choices, max_tokens));
  if (choices.prune > 0) fixed += RecentQueries::reserved_bytes(shape);
  if (choices.sort) fixed += Buffer::reserved_bytes(size_t{shape.n_kv_heads} * shape.key_dim);
  const uint64_t block_bytes = layout_of(shape, choices).block_bytes;
  return StateSpec([=, residual = choices.residual](uint64_t tokens) {
    return fixed + round_up<uint64_t>(sealed_blocks(tokens, residual) * block_bytes, GrowingBuffer::kStepBytes);
  });
}

CodedKv::CodedKv(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens, Ledger& ledger)
    : shape_(shape),
      choices_(choices),
      max_tokens_(max_tokens),
      ledger_(ledger),
      layout_(std::make_unique<const Layout>(layout_of(shape, choices))),
      tail_(shape, tail_capacity(choices, max_tokens), ledger),
      blocks_(ledger, Tag::kKv, round_up<size_t>(std::max<size_t>(1, sealed_blocks(max_tokens, choices.residual)) *
                                                     layout_->block_bytes, GrowingBuffer::kStepBytes),
              "sealed keys and values") {
  if (choices.prune > 0) recent_ = RecentQueries(shape, ledger);
  if (choices.sort) order_ = Buffer(ledger, Tag::kKv, size_t{shape.n_kv_heads} * shape.key_dim, "order of key channels");
}

CodedKv::~CodedKv() = default;

void CodedKv::reserve(size_t n_tokens) {
  const uint64_t end = static_cast<uint64_t>(n_tokens_) + n_tokens;
  if (end > max_tokens_) {
    fail(ErrorCode::kContextOverflow, "[append] expected at most {} tokens of context, found {}", max_tokens_, end);
  }
  blocks_.grow_to(sealed_blocks(end, choices_.residual) * layout_->block_bytes);
}

void CodedKv::extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) {
  // In pieces that end where a block is due, so that every query sees what was sealed before its own token.
  for (size_t first = 0; first < rows.n_tokens;) {
    const size_t n = std::min(rows.n_tokens - first, choices_.residual + kBlockTokens - tail_.size());
    tail_.append(rows, first, n);
    n_tokens_ += static_cast<int64_t>(n);
    if (choices_.prune > 0) recent_.add(queries, first, n);
    attend(queries, first, n, out + first * out_stride, out_stride);
    if (tail_.size() == choices_.residual + kBlockTokens) seal();
    first += n;
  }
}

std::byte* CodedKv::part(int64_t block, size_t head) {
  return blocks_.data() + static_cast<size_t>(block) * layout_->block_bytes + head * layout_->head_bytes;
}

const std::byte* CodedKv::part(int64_t block, size_t head) const { return const_cast<CodedKv*>(this)->part(block, head); }

kernels::BlockKeys CodedKv::keys_of(int64_t block, size_t head) const {
  const std::byte* const at = part(block, head);
  const std::byte* list = nullptr;
  if (choices_.prune > 0) list = at;
  if (choices_.sort) list = order_.data() + head * shape_.key_dim;
  return {layout_->keys_coded ? &layout_->keys : nullptr, at + layout_->list_bytes, layout_->n_channels,
          reinterpret_cast<const uint8_t*>(list)};
}

kernels::BlockValues CodedKv::values_of(int64_t block, size_t head) const {
  return {layout_->values_coded ? &layout_->values : nullptr,
          part(block, head) + layout_->list_bytes + layout_->key_bytes};
}

void CodedKv::attend(const KvQueries& queries, size_t first, size_t n, float* out, size_t out_stride) const {
  const int64_t tail_first = n_tokens_ - static_cast<int64_t>(tail_.size());
  const int64_t first_query = n_tokens_ - static_cast<int64_t>(n);
  const size_t block_spans = div_up<size_t>(static_cast<size_t>(n_sealed_), kSpanBlocks);

  const auto attend_span = [&](const SpanRows& rows, size_t span, const kernels::AttentionTriple& result) {
    if (span < block_spans) {
      const size_t n_rows = rows.queries.n_rows;
      std::vector<uint32_t> range(2 * n_rows, 0);
      std::fill(range.begin() + static_cast<long>(n_rows), range.end(), static_cast<uint32_t>(kBlockTokens));
      const auto begin = static_cast<int64_t>(span * kSpanBlocks);
      const int64_t end = std::min(n_sealed_, begin + static_cast<int64_t>(kSpanBlocks));
      for (int64_t block = begin; block < end; ++block) {
        const std::byte* const next = part(block + 1, rows.head);
        if (block + 1 < n_sealed_) {
          for (size_t i = 0; i < layout_->head_bytes; i += 64) __builtin_prefetch(next + i);
        }
        kernels::attend_block(rows.queries, keys_of(block, rows.head), values_of(block, rows.head), range.data(),
                              range.data() + n_rows, result);
      }
      return;
    }
    tail_.attend(rows, span - block_spans, tail_first, first_query, result);
  };
  attend_spans(shape_, queries, first, n, block_spans + tail_.n_runs(tail_first), attend_span, out, out_stride);
}

/// Moves the oldest 64 tokens of the tail into a block.
void CodedKv::seal() {
  const int64_t block = n_sealed_;
  const size_t key_dim = shape_.key_dim, value_dim = shape_.value_dim;
  parallel_dynamic(shape_.n_kv_heads, [&](size_t head) {
    const kernels::VectorOps& ops = kernels::vector_ops();
    std::vector<float> keys(kBlockTokens * key_dim), values(kBlockTokens * value_dim);
    ops.f16_to_f32(tail_.key(head, 0), keys.size(), keys.data());
    ops.f16_to_f32(tail_.value(head, 0), values.size(), values.data());

    std::byte* const at = part(block, head);
    if (choices_.prune > 0 || (choices_.sort && block == 0)) choose_channels(head, keys, at);
    const kernels::BlockKeys stored = keys_of(block, head);
    if (stored.channels != nullptr) {
      std::vector<float> picked(kBlockTokens * stored.n_channels);
      for (size_t t = 0; t < kBlockTokens; ++t) {
        for (size_t c = 0; c < stored.n_channels; ++c) {
          picked[t * stored.n_channels + c] = keys[t * key_dim + stored.channels[c]];
        }
      }
      keys = std::move(picked);
    }
    std::byte* const key_part = at + layout_->list_bytes;
    std::byte* const value_part = key_part + layout_->key_bytes;
    if (layout_->keys_coded) {
      layout_->keys.encode({keys.data(), layout_->n_channels, 1}, layout_->keys.whole(), key_part);
    } else {
      ops.f32_to_f16(keys.data(), keys.size(), key_part);
    }
    if (layout_->values_coded) {
      layout_->values.encode({values.data(), 1, value_dim}, layout_->values.whole(), value_part);
    } else {
      ops.f32_to_f16(values.data(), values.size(), value_part);
    }
  });
  ++n_sealed_;
  tail_.drop_oldest(kBlockTokens);
}

void CodedKv::choose_channels(size_t head, std::span<const float> keys, std::byte* list) {
  const size_t dim = shape_.key_dim;
  std::vector<float> energy(dim, 0.0f);
  for (size_t t = 0; t < kBlockTokens; ++t) {
    for (size_t c = 0; c < dim; ++c) energy[c] += keys[t * dim + c] * keys[t * dim + c];
  }
  if (choices_.sort) {
    sort_channels(energy, reinterpret_cast<uint8_t*>(order_.data()) + head * dim);
    return;
  }
  std::vector<float> queries(dim);
  recent_.energy(head, queries);
  for (size_t c = 0; c < dim; ++c) energy[c] *= queries[c];
  keep_channels(energy, layout_->n_channels, reinterpret_cast<uint8_t*>(list));
}

uint64_t CodedKv::bytes() const {
  return tail_.bytes() + blocks_.committed() + recent_.bytes() + (choices_.sort ? Buffer::reserved_bytes(order_.size()) : 0);
}

bool CodedKv::truncate(int64_t n_tokens) {
  const int64_t sealed = n_sealed_ * static_cast<int64_t>(kBlockTokens);
  if (n_tokens < sealed || n_tokens > n_tokens_) return false;
  tail_.truncate(static_cast<size_t>(n_tokens - sealed));
  n_tokens_ = n_tokens;
  return true;
}

std::unique_ptr<LayerState> CodedKv::copy(CopyScope&) const {
  auto copy = std::make_unique<CodedKv>(shape_, choices_, max_tokens_, ledger_);
  copy->blocks_.grow_to(blocks_.committed());
  std::memcpy(copy->blocks_.data(), blocks_.data(), blocks_.committed());
  copy->tail_.copy_from(tail_);
  if (choices_.prune > 0) copy->recent_.copy_from(recent_);
  if (choices_.sort) std::memcpy(copy->order_.data(), order_.data(), order_.size());
  copy->n_tokens_ = n_tokens_;
  copy->n_sealed_ = n_sealed_;
  return copy;
}

PageRange CodedKv::sealed_pages() const { return {0, n_sealed_ / kPageBlocks}; }

void CodedKv::save_page(int64_t page, StateWriter& out) const {
  out.write({part(page * kPageBlocks, 0), kPageBlocks * layout_->block_bytes});
}

bool CodedKv::save_rest(int64_t n_tokens, StateWriter& out) const {
  if (n_tokens != n_tokens_) return false;
  const int64_t saved = n_sealed_ / kPageBlocks * kPageBlocks;
  out.put(n_tokens_);
  out.put(n_sealed_);
  if (n_sealed_ > saved) out.write({part(saved, 0), static_cast<size_t>(n_sealed_ - saved) * layout_->block_bytes});
  tail_.save(out);
  if (choices_.prune > 0) recent_.save(out);
  if (choices_.sort) out.write({order_.data(), order_.size()});
  return true;
}

void CodedKv::load_page(int64_t page, StateReader& in) {
  if (page != n_sealed_ / kPageBlocks || n_sealed_ % kPageBlocks != 0 || tail_.size() > 0) {
    fail(ErrorCode::kCorruptData, "[load keys and values] expected page {}, found page {}", n_sealed_ / kPageBlocks, page);
  }
  load_blocks(n_sealed_ + kPageBlocks, in);
  n_tokens_ = n_sealed_ * static_cast<int64_t>(kBlockTokens);
  in.finish();
}

/// Reads blocks up to `n_blocks`.
void CodedKv::load_blocks(int64_t n_blocks, StateReader& in) {
  if (static_cast<uint64_t>(n_blocks) > sealed_blocks(max_tokens_, choices_.residual)) {
    fail(ErrorCode::kContextOverflow, "[load keys and values] expected at most {} tokens of context, found more", max_tokens_);
  }
  blocks_.grow_to(static_cast<size_t>(n_blocks) * layout_->block_bytes);
  in.copy_to(part(n_sealed_, 0), static_cast<size_t>(n_blocks - n_sealed_) * layout_->block_bytes);
  n_sealed_ = n_blocks;
}

void CodedKv::load_rest(StateReader& in) {
  const auto n_tokens = in.get<int64_t>(), n_sealed = in.get<int64_t>();
  // What was truncated may have more blocks than a fresh sequence of that length, but never fewer.
  const bool possible = n_tokens >= 0 && static_cast<uint64_t>(n_tokens) <= max_tokens_ && n_sealed >= n_sealed_ &&
                        n_sealed < n_sealed_ + kPageBlocks && n_sealed * static_cast<int64_t>(kBlockTokens) <= n_tokens &&
                        static_cast<uint64_t>(n_sealed) >= sealed_blocks(static_cast<uint64_t>(n_tokens), choices_.residual);
  if (!possible) {
    fail(ErrorCode::kCorruptData, "[load keys and values] expected the rest of {} blocks or up to {} more, found {} blocks for {} tokens",
         n_sealed_, kPageBlocks - 1, n_sealed, n_tokens);
  }
  load_blocks(n_sealed, in);
  tail_.load(in);
  if (static_cast<int64_t>(tail_.size()) != n_tokens - n_sealed * static_cast<int64_t>(kBlockTokens)) {
    fail(ErrorCode::kCorruptData, "[load keys and values] expected {} recent tokens, found {}",
         n_tokens - n_sealed * static_cast<int64_t>(kBlockTokens), tail_.size());
  }
  if (choices_.prune > 0) recent_.load(in);
  if (choices_.sort) in.copy_to(order_.data(), order_.size());
  in.finish();
  check_channels();
  n_tokens_ = n_tokens;
}

/// Channel numbers come from files too: all of them must be channels.
void CodedKv::check_channels() const {
  for (int64_t block = 0; block < n_sealed_; ++block) {
    for (size_t head = 0; head < shape_.n_kv_heads; ++head) {
      const kernels::BlockKeys keys = keys_of(block, head);
      if (keys.channels == nullptr) return;
      for (size_t c = 0; c < keys.n_channels; ++c) {
        if (keys.channels[c] >= shape_.key_dim) {
          fail(ErrorCode::kCorruptData, "[load keys and values] expected channels below {}, found {}", shape_.key_dim,
               keys.channels[c]);
        }
      }
    }
  }
}

void CodedKv::decode(int64_t block, size_t head, float* keys, float* values) const {
  const kernels::BlockKeys stored = keys_of(block, head);
  std::vector<float> picked(kBlockTokens * stored.n_channels);
  if (stored.matrix != nullptr) {
    stored.matrix->decode(stored.data, stored.matrix->whole(), {picked.data(), stored.n_channels, 1});
  } else {
    kernels::vector_ops().f16_to_f32(stored.data, picked.size(), picked.data());
  }
  std::fill_n(keys, kBlockTokens * shape_.key_dim, 0.0f);
  for (size_t t = 0; t < kBlockTokens; ++t) {
    for (size_t c = 0; c < stored.n_channels; ++c) {
      keys[t * shape_.key_dim + (stored.channels != nullptr ? stored.channels[c] : c)] = picked[t * stored.n_channels + c];
    }
  }
  const kernels::BlockValues coded = values_of(block, head);
  if (coded.matrix != nullptr) {
    coded.matrix->decode(coded.data, coded.matrix->whole(), {values, 1, shape_.value_dim});
  } else {
    kernels::vector_ops().f16_to_f32(coded.data, kBlockTokens * shape_.value_dim, values);
  }
}

}  // namespace mneme
