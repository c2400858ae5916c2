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

SealRhythm rhythm_of(const KvChoices& choices) { return {choices.residual, kBlockTokens}; }

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
  uint64_t more = 0;
  if (choices.prune > 0) more += RecentQueries::reserved_bytes(shape);
  if (choices.sort) more += Buffer::reserved_bytes(size_t{shape.n_kv_heads} * shape.key_dim);
  return spec_of(shape, rhythm_of(choices), layout_of(shape, choices).block_bytes, max_tokens, more);
}

CodedKv::CodedKv(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens, Ledger& ledger)
    : BlockKv(shape, rhythm_of(choices), layout_of(shape, choices).block_bytes, max_tokens, ledger,
              "sealed keys and values"),
      choices_(choices),
      layout_(std::make_unique<const Layout>(layout_of(shape, choices))) {
  if (choices.prune > 0) recent_ = RecentQueries(shape, ledger);
  if (choices.sort) order_ = Buffer(ledger, Tag::kKv, size_t{shape.n_kv_heads} * shape.key_dim, "order of key channels");
}

CodedKv::~CodedKv() = default;

std::byte* CodedKv::part(uint64_t block, size_t head) { return at(block) + head * layout_->head_bytes; }

const std::byte* CodedKv::part(uint64_t block, size_t head) const { return at(block) + head * layout_->head_bytes; }

kernels::BlockKeys CodedKv::keys_of(uint64_t block, size_t head) const {
  const std::byte* const at = part(block, head);
  const std::byte* list = nullptr;
  if (choices_.prune > 0) list = at;
  if (choices_.sort) list = order_.data() + head * shape_.key_dim;
  return {layout_->keys_coded ? &layout_->keys : nullptr, at + layout_->list_bytes, layout_->n_channels,
          reinterpret_cast<const uint8_t*>(list)};
}

kernels::BlockValues CodedKv::values_of(uint64_t block, size_t head) const {
  return {layout_->values_coded ? &layout_->values : nullptr,
          part(block, head) + layout_->list_bytes + layout_->key_bytes};
}

void CodedKv::attend(const KvQueries& queries, size_t first, size_t n, float* out, size_t out_stride) {
  if (choices_.prune > 0) recent_.add(queries, first, n);
  const int64_t first_query = n_tokens_ - static_cast<int64_t>(n);
  const size_t block_spans = div_up<size_t>(n_sealed_, kSpanBlocks);

  const auto attend_span = [&](const SpanRows& rows, size_t span, const kernels::AttentionTriple& result) {
    if (span < block_spans) {
      kernels::BlockKeys keys[kSpanBlocks];
      kernels::BlockValues values[kSpanBlocks];
      const uint64_t begin = span * kSpanBlocks, end = std::min<uint64_t>(n_sealed_, begin + kSpanBlocks);
      for (uint64_t block = begin; block < end; ++block) {
        keys[block - begin] = keys_of(block, rows.head);
        values[block - begin] = values_of(block, rows.head);
        if (const uint64_t next = block + kSpanBlocks; next < n_sealed_) {
          keys[block - begin].ahead = keys_of(next, rows.head).data;
          values[block - begin].ahead = values_of(next, rows.head).data;
        }
      }
      kernels::attend_blocks(rows.queries, {keys, end - begin}, {values, end - begin}, result);
      return;
    }
    tail_.attend(rows, span - block_spans, tail_first(), first_query, result);
  };
  attend_spans(shape_, queries, first, n, block_spans + tail_.n_runs(tail_first()), attend_span, out, out_stride);
}

void CodedKv::seal() {
  const uint64_t block = n_sealed_ - 1;
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
  return BlockKv::bytes() + recent_.bytes() + (choices_.sort ? Buffer::reserved_bytes(order_.size()) : 0);
}

std::unique_ptr<LayerState> CodedKv::copy(CopyScope&) const {
  auto copy = std::make_unique<CodedKv>(shape_, choices_, max_tokens_, ledger_);
  copy_blocks_to(*copy);
  if (choices_.prune > 0) copy->recent_.copy_from(recent_);
  if (choices_.sort) std::memcpy(copy->order_.data(), order_.data(), order_.size());
  return copy;
}

void CodedKv::save_beside_tail(StateWriter& out) const {
  if (choices_.prune > 0) recent_.save(out);
  if (choices_.sort) out.write({order_.data(), order_.size()});
}

void CodedKv::load_beside_tail(StateReader& in) {
  if (choices_.prune > 0) recent_.load(in);
  if (choices_.sort) in.copy_to(order_.data(), order_.size());
  check_channels();
}

/// Channel numbers come from files too: all of them must be channels.
void CodedKv::check_channels() const {
  for (uint64_t block = 0; block < n_sealed_; ++block) {
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

void CodedKv::decode(uint64_t block, size_t head, float* keys, float* values) const {
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
