#include "context/mikv_kv.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/parallel.h"
#include "context/attention_spans.h"
#include "kernels/vector_ops.h"

namespace mneme {
namespace {

using kernels::CodedFormat;
using kernels::CodedMatrix;
using kernels::kBlockTokens;

constexpr size_t kSpanBlocks = 4;

uint64_t high_blocks(uint64_t sealed, float keep) {
  return static_cast<uint64_t>(std::ceil(static_cast<double>(keep) * static_cast<double>(sealed) - 1e-9));
}

uint64_t sealed_blocks(uint64_t n_tokens, uint32_t residual) {
  return n_tokens > residual ? (n_tokens - residual) / kBlockTokens : 0;
}

size_t tail_capacity(const KvChoices& choices) { return choices.residual + kBlockTokens; }

/// About half a head, so that no group spans the two halves that rotate together.
uint32_t group_of(size_t dim) { return static_cast<uint32_t>(round_up<size_t>(div_up<size_t>(dim, 2), 32)); }

}  // namespace

/// One tier's blocks: codes of `bits`, or f16.
struct MikvKv::Tier {
  bool coded = false;
  CodedMatrix keys, values;
  size_t key_bytes = 0, value_bytes = 0;

  Tier(unsigned bits, const KvShape& shape) : coded(bits < 16) {
    if (bits == 0) return;
    key_bytes = kBlockTokens * shape.key_dim * 2;
    value_bytes = kBlockTokens * shape.value_dim * 2;
    if (!coded) return;
    CodedFormat format{static_cast<uint8_t>(bits), CodedFormat::Groups::kAlongDepth, CodedFormat::Scales::kFloat16,
                       group_of(shape.key_dim)};
    keys = CodedMatrix(format, kBlockTokens, shape.key_dim);
    format.groups = CodedFormat::Groups::kAlongLanes;
    format.group = group_of(shape.value_dim);
    values = CodedMatrix(format, shape.value_dim, kBlockTokens);
    key_bytes = keys.bytes();
    value_bytes = values.bytes();
  }

  size_t bytes() const { return key_bytes + value_bytes; }
  kernels::BlockKeys block_keys(const std::byte* at, size_t dim) const { return {coded ? &keys : nullptr, at, dim}; }
  kernels::BlockValues block_values(const std::byte* at) const { return {coded ? &values : nullptr, at + key_bytes}; }

  /// Writes and reads slot `slot` of the block at `at`.
  void write(std::byte* at, size_t slot, std::span<const float> key, std::span<const float> value) const {
    const kernels::VectorOps& ops = kernels::vector_ops();
    if (coded) {
      keys.encode({key.data(), key.size(), 1}, {slot, slot + 1, 0, key.size()}, at);
      values.encode({value.data(), 1, value.size()}, {0, value.size(), slot, slot + 1}, at + key_bytes);
    } else {
      ops.f32_to_f16(key.data(), key.size(), at + slot * key.size() * 2);
      ops.f32_to_f16(value.data(), value.size(), at + key_bytes + slot * value.size() * 2);
    }
  }
  void read(const std::byte* at, size_t slot, std::span<float> key, std::span<float> value) const {
    const kernels::VectorOps& ops = kernels::vector_ops();
    if (coded) {
      keys.decode(at, {slot, slot + 1, 0, key.size()}, {key.data(), key.size(), 1});
      values.decode(at + key_bytes, {0, value.size(), slot, slot + 1}, {value.data(), 1, value.size()});
    } else {
      ops.f16_to_f32(at + slot * key.size() * 2, key.size(), key.data());
      ops.f16_to_f32(at + key_bytes + slot * value.size() * 2, value.size(), value.data());
    }
  }
};

struct MikvKv::Layout {
  Tier high, low;
  size_t high_head_bytes, low_head_bytes;  ///< One block of one head; the high one with the importance of its tokens.

  Layout(const KvShape& shape, const KvChoices& choices)
      : high(choices.importance->high_bits, shape),
        low(choices.importance->low_bits, shape),
        high_head_bytes(high.bytes() + kBlockTokens * sizeof(float)),
        low_head_bytes(low.bytes()) {}
};

StateSpec MikvKv::spec(const KvShape& shape, const KvChoices& choices) {
  const Layout layout(shape, choices);
  const uint64_t channels = uint64_t{shape.n_kv_heads} * shape.key_dim * sizeof(float);
  const uint64_t fixed =
      OpenTail::reserved_bytes(shape, tail_capacity(choices)) + Buffer::reserved_bytes(channels) +
      Buffer::reserved_bytes(2 * channels) +
      Buffer::reserved_bytes(shape.n_kv_heads * tail_capacity(choices) * sizeof(float));
  const uint64_t high = layout.high_head_bytes * shape.n_kv_heads, low = layout.low_head_bytes * shape.n_kv_heads;
  return StateSpec([=, keep = choices.importance->keep, residual = choices.residual](uint64_t tokens) {
    const uint64_t sealed = sealed_blocks(tokens, residual), n_high = high_blocks(sealed, keep);
    return fixed + round_up<uint64_t>(n_high * high, GrowingBuffer::kStepBytes) +
           round_up<uint64_t>((sealed - n_high) * low, GrowingBuffer::kStepBytes);
  });
}

MikvKv::MikvKv(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens, Ledger& ledger)
    : shape_(shape),
      choices_(choices),
      max_tokens_(max_tokens),
      ledger_(ledger),
      layout_(std::make_unique<const Layout>(shape, choices)),
      tail_(shape, tail_capacity(choices), ledger),
      balance_(ledger, Tag::kKv, size_t{shape.n_kv_heads} * shape.key_dim * sizeof(float), "balance of key channels"),
      sizes_(ledger, Tag::kKv, 2 * balance_.size(), "sizes of queries and keys"),
      tail_importance_(ledger, Tag::kKv, shape.n_kv_heads * tail_.capacity() * sizeof(float), "importance of tokens") {
  const uint64_t sealed = sealed_blocks(max_tokens, choices.residual), n_high = high_blocks(sealed, choices.importance->keep);
  const auto capacity = [&](uint64_t blocks, size_t head_bytes) {
    return round_up<size_t>(std::max<size_t>(1, blocks * head_bytes * shape.n_kv_heads), GrowingBuffer::kStepBytes);
  };
  high_ = GrowingBuffer(ledger, Tag::kKv, capacity(n_high, layout_->high_head_bytes), "important keys and values");
  low_ = GrowingBuffer(ledger, Tag::kKv, capacity(sealed - n_high, layout_->low_head_bytes), "other keys and values");
}

MikvKv::~MikvKv() = default;

void MikvKv::reserve(size_t n_tokens) {
  const uint64_t end = static_cast<uint64_t>(n_tokens_) + n_tokens;
  if (end > max_tokens_) {
    fail(ErrorCode::kContextOverflow, "[append] expected at most {} tokens of context, found {}", max_tokens_, end);
  }
  const uint64_t sealed = sealed_blocks(end, choices_.residual), n_high = high_blocks(sealed, choices_.importance->keep);
  const size_t high_before = high_.committed();
  high_.grow_to(n_high * layout_->high_head_bytes * shape_.n_kv_heads);
  try {
    low_.grow_to((sealed - n_high) * layout_->low_head_bytes * shape_.n_kv_heads);
  } catch (...) {
    high_.shrink_to(high_before);
    throw;
  }
}

void MikvKv::extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) {
  for (size_t first = 0; first < rows.n_tokens;) {
    const size_t n = std::min(rows.n_tokens - first, tail_.capacity() - tail_.size());
    const size_t before = tail_.size();
    tail_.append(rows, first, n);
    const auto importance = tail_importance_.as<float>();
    for (size_t head = 0; head < shape_.n_kv_heads; ++head) {
      std::fill_n(importance.data() + head * tail_.capacity() + before, n, 0.0f);
    }
    n_tokens_ += static_cast<int64_t>(n);
    if (!balanced_) watch_sizes(queries, first, n);
    attend(queries, first, n, out + first * out_stride, out_stride);
    if (tail_.size() == tail_.capacity()) seal();
    first += n;
  }
}

void MikvKv::attend(const KvQueries& queries, size_t first, size_t n, float* out, size_t out_stride) {
  const int64_t tail_first = n_tokens_ - static_cast<int64_t>(tail_.size());
  const int64_t first_query = n_tokens_ - static_cast<int64_t>(n);
  const size_t low_spans = layout_->low.bytes() == 0 ? 0 : div_up<size_t>(n_low_, kSpanBlocks);
  const size_t high_spans = div_up<size_t>(n_high_, kSpanBlocks);

  const auto attend_blocks = [&](const kernels::AttentionQueries& rows, const Tier& tier, const std::byte* data,
                                 size_t head_bytes, size_t head, size_t span, size_t n_blocks,
                                 const kernels::AttentionTriple& result) {
    kernels::BlockKeys keys[kSpanBlocks];
    kernels::BlockValues values[kSpanBlocks];
    const auto at = [&](size_t block) { return data + (block * shape_.n_kv_heads + head) * head_bytes; };
    const size_t begin = span * kSpanBlocks, end = std::min(n_blocks, begin + kSpanBlocks);
    for (size_t block = begin; block < end; ++block) {
      keys[block - begin] = tier.block_keys(at(block), shape_.key_dim);
      values[block - begin] = tier.block_values(at(block));
      if (const size_t next = block + kSpanBlocks; next < n_blocks) {
        keys[block - begin].ahead = tier.block_keys(at(next), shape_.key_dim).data;
        values[block - begin].ahead = tier.block_values(at(next)).data;
      }
    }
    kernels::attend_blocks(rows, {keys, end - begin}, {values, end - begin}, result);
  };
  const auto attend_span = [&](const SpanRows& rows, size_t span, const kernels::AttentionTriple& result) {
    const size_t n_rows = rows.queries.n_rows;
    if (span < low_spans) {
      // The queries in the balanced channels of the stored keys.
      std::vector<float> q(n_rows * shape_.key_dim);
      const float* const inverse = balance_.as<float>().data() + rows.head * shape_.key_dim;
      for (size_t r = 0; r < n_rows; ++r) {
        kernels::vector_ops().multiply(rows.queries.q + r * rows.queries.q_stride, inverse, shape_.key_dim,
                                       q.data() + r * shape_.key_dim);
      }
      kernels::AttentionQueries balanced = rows.queries;
      balanced.q = q.data();
      balanced.q_stride = shape_.key_dim;
      attend_blocks(balanced, layout_->low, low_.data(), layout_->low_head_bytes, rows.head, span, n_low_, result);
      return;
    }
    span -= low_spans;
    if (span < high_spans) {
      attend_blocks(rows.queries, layout_->high, high_.data(), layout_->high_head_bytes, rows.head, span, n_high_,
                    result);
      return;
    }
    tail_.attend(rows, span - high_spans, tail_first, first_query, result);
  };
  std::vector<float> max(n * queries.n_heads), sum(n * queries.n_heads);
  attend_spans(shape_, queries, first, n, low_spans + high_spans + tail_.n_runs(tail_first), attend_span, out, out_stride,
               {max.data(), sum.data()});
  add_importance(queries, first, n, max, sum);
}

/// Adds what the queries of the last n tokens gave to the tokens of the tail and of the high tier.
void MikvKv::add_importance(const KvQueries& queries, size_t first, size_t n, std::span<const float> max,
                            std::span<const float> sum) {
  const size_t group = queries.n_heads / shape_.n_kv_heads, dim = shape_.key_dim;
  parallel_dynamic(shape_.n_kv_heads, [&](size_t head) {
    const size_t n_rows = n * group;
    std::vector<float> q(n_rows * dim), row_max(n_rows), row_sum(n_rows);
    for (size_t r = 0; r < n_rows; ++r) {
      const size_t token = r / group, h = head * group + r % group;
      std::copy_n(queries.q + (first + token) * queries.q_stride + h * dim, dim, q.data() + r * dim);
      row_max[r] = max[token * queries.n_heads + h];
      row_sum[r] = sum[token * queries.n_heads + h];
    }
    const kernels::AttentionQueries rows{q.data(), n_rows, dim, dim, shape_.value_dim, queries.scale, queries.softcap};
    std::vector<uint32_t> first_seen(n_rows, 0), last_seen(n_rows, static_cast<uint32_t>(kBlockTokens));
    for (size_t block = 0; block < n_high_; ++block) {
      std::byte* const at = high_.data() + (block * shape_.n_kv_heads + head) * layout_->high_head_bytes;
      kernels::add_block_weights(rows, layout_->high.block_keys(at, dim), first_seen.data(), last_seen.data(), row_max.data(),
                                 row_sum.data(), reinterpret_cast<float*>(at + layout_->high.bytes()));
    }
    const size_t before = tail_.size() - n;  // tail tokens older than these
    for (size_t begin = 0; begin < tail_.size(); begin += kBlockTokens) {
      for (size_t r = 0; r < n_rows; ++r) {
        const size_t visible = before + r / group + 1;
        last_seen[r] = static_cast<uint32_t>(visible > begin ? std::min(visible - begin, kBlockTokens) : 0);
      }
      kernels::add_block_weights(rows, {nullptr, tail_.key(head, begin), dim}, first_seen.data(), last_seen.data(),
                                 row_max.data(), row_sum.data(),
                                 tail_importance_.as<float>().data() + head * tail_.capacity() + begin);
    }
  });
}

/// Largest |q| over the heads of a group and largest |k| of every channel.
void MikvKv::watch_sizes(const KvQueries& queries, size_t first, size_t n) {
  const size_t group = queries.n_heads / shape_.n_kv_heads, dim = shape_.key_dim;
  const auto sizes = sizes_.as<float>();
  std::vector<float> key(dim);
  for (size_t head = 0; head < shape_.n_kv_heads; ++head) {
    float* const largest_q = sizes.data() + head * dim;
    float* const largest_k = sizes.data() + (shape_.n_kv_heads + head) * dim;
    for (size_t t = 0; t < n; ++t) {
      for (size_t g = 0; g < group; ++g) {
        const float* const q = queries.q + (first + t) * queries.q_stride + (head * group + g) * dim;
        for (size_t c = 0; c < dim; ++c) largest_q[c] = std::max(largest_q[c], std::abs(q[c]));
      }
      kernels::vector_ops().f16_to_f32(tail_.key(head, tail_.size() - n + t), dim, key.data());
      for (size_t c = 0; c < dim; ++c) largest_k[c] = std::max(largest_k[c], std::abs(key[c]));
    }
  }
}

void MikvKv::freeze_balance() {
  const auto inverse = balance_.as<float>();
  const auto sizes = sizes_.as<float>();
  const size_t n = inverse.size();
  for (size_t i = 0; i < n; ++i) {
    const float q = sizes[i], k = sizes[n + i];
    const bool usable = choices_.importance->balance && q > 0 && k > 0 && std::isfinite(q) && std::isfinite(k);
    inverse[i] = usable ? 1 / std::clamp(std::sqrt(q / k), 1e-4f, 1e4f) : 1.0f;
  }
  balanced_ = true;
}

void MikvKv::read_tail(size_t head, size_t i, std::span<float> key, std::span<float> value) const {
  kernels::vector_ops().f16_to_f32(tail_.key(head, i), key.size(), key.data());
  kernels::vector_ops().f16_to_f32(tail_.value(head, i), value.size(), value.data());
}

/// Moves the oldest 64 tokens of the tail on.
void MikvKv::seal() {
  const bool grow_high = high_blocks(n_high_ + n_low_ + 1, choices_.importance->keep) > n_high_;
  if (!grow_high && !balanced_) freeze_balance();
  parallel_dynamic(shape_.n_kv_heads, [&](size_t head) { seal_head(head, grow_high); });
  ++(grow_high ? n_high_ : n_low_);
  const auto importance = tail_importance_.as<float>();
  for (size_t head = 0; head < shape_.n_kv_heads; ++head) {
    float* const at = importance.data() + head * tail_.capacity();
    std::memmove(at, at + kBlockTokens, (tail_.capacity() - kBlockTokens) * sizeof(float));
  }
  tail_.drop_oldest(kBlockTokens);
}

void MikvKv::seal_head(size_t head, bool grow_high) {
  std::vector<float> key(shape_.key_dim), value(shape_.value_dim);
  const float* const leaving = tail_importance_.as<float>().data() + head * tail_.capacity();
  const auto high_at = [&](uint64_t block) {
    return high_.data() + (block * shape_.n_kv_heads + head) * layout_->high_head_bytes;
  };
  const auto importance_of = [&](uint64_t slot) -> float& {
    return reinterpret_cast<float*>(high_at(slot / kBlockTokens) + layout_->high.bytes())[slot % kBlockTokens];
  };
  if (grow_high) {
    for (size_t i = 0; i < kBlockTokens; ++i) {
      read_tail(head, i, key, value);
      layout_->high.write(high_at(n_high_), i, key, value);
      importance_of(n_high_ * kBlockTokens + i) = leaving[i];
    }
    return;
  }
  // The 64 least important of the high slots (numbers below n_slots) and of the leaving tokens (behind them).
  const uint64_t n_slots = n_high_ * kBlockTokens;
  std::vector<uint32_t> candidates(n_slots + kBlockTokens);
  std::iota(candidates.begin(), candidates.end(), 0u);
  const auto worth = [&](uint32_t i) {
    const float a = i < n_slots ? importance_of(i) : leaving[i - n_slots];
    return a == a ? a : 0.0f;
  };
  std::nth_element(candidates.begin(), candidates.begin() + kBlockTokens, candidates.end(), [&](uint32_t a, uint32_t b) {
    return worth(a) != worth(b) ? worth(a) < worth(b) : a < b;
  });
  candidates.resize(kBlockTokens);
  std::sort(candidates.begin(), candidates.end());

  std::vector<bool> leaves(kBlockTokens, false);  // of the tokens of the tail: becomes low
  for (const uint32_t i : candidates) {
    if (i >= n_slots) leaves[i - n_slots] = true;
  }
  std::byte* const low_at = low_.data() + (n_low_ * shape_.n_kv_heads + head) * layout_->low_head_bytes;
  const float* const inverse = balance_.as<float>().data() + head * shape_.key_dim;
  size_t next = 0;  // token of the tail that takes the next free high slot
  for (size_t j = 0; j < kBlockTokens; ++j) {
    const uint32_t i = candidates[j];
    if (i < n_slots) {
      layout_->high.read(high_at(i / kBlockTokens), i % kBlockTokens, key, value);
    } else {
      read_tail(head, i - n_slots, key, value);
    }
    if (layout_->low.bytes() > 0) {
      for (size_t c = 0; c < key.size(); ++c) key[c] /= inverse[c];
      layout_->low.write(low_at, j, key, value);
    }
    if (i < n_slots) {
      while (leaves[next]) ++next;
      read_tail(head, next, key, value);
      layout_->high.write(high_at(i / kBlockTokens), i % kBlockTokens, key, value);
      importance_of(i) = leaving[next++];
    }
  }
}

uint64_t MikvKv::bytes() const {
  return tail_.bytes() + Buffer::reserved_bytes(balance_.size()) + Buffer::reserved_bytes(sizes_.size()) +
         Buffer::reserved_bytes(tail_importance_.size()) + high_.committed() + low_.committed();
}

std::unique_ptr<LayerState> MikvKv::copy(CopyScope&) const {
  auto copy = std::make_unique<MikvKv>(shape_, choices_, max_tokens_, ledger_);
  copy->high_.grow_to(high_.committed());
  copy->low_.grow_to(low_.committed());
  std::memcpy(copy->high_.data(), high_.data(), high_.committed());
  std::memcpy(copy->low_.data(), low_.data(), low_.committed());
  copy->tail_.copy_from(tail_);
  std::memcpy(copy->balance_.data(), balance_.data(), balance_.size());
  std::memcpy(copy->sizes_.data(), sizes_.data(), sizes_.size());
  std::memcpy(copy->tail_importance_.data(), tail_importance_.data(), tail_importance_.size());
  copy->n_tokens_ = n_tokens_;
  copy->n_high_ = n_high_;
  copy->n_low_ = n_low_;
  copy->balanced_ = balanced_;
  return copy;
}

bool MikvKv::save_rest(int64_t n_tokens, StateWriter& out) const {
  if (n_tokens != n_tokens_) return false;
  out.put(n_tokens_);
  out.put(n_high_);
  out.put(n_low_);
  out.put(uint8_t{balanced_});
  out.write({high_.data(), n_high_ * layout_->high_head_bytes * shape_.n_kv_heads});
  out.write({low_.data(), n_low_ * layout_->low_head_bytes * shape_.n_kv_heads});
  tail_.save(out);
  for (const Buffer* buffer : {&balance_, &sizes_, &tail_importance_}) out.write({buffer->data(), buffer->size()});
  return true;
}

void MikvKv::load_rest(StateReader& in) {
  const auto n_tokens = in.get<int64_t>();
  const auto n_high = in.get<uint64_t>(), n_low = in.get<uint64_t>();
  const bool balanced = in.get<uint8_t>() != 0;
  const uint64_t sealed = n_tokens < 0 ? 0 : sealed_blocks(static_cast<uint64_t>(n_tokens), choices_.residual);
  if (n_tokens < 0 || n_high != high_blocks(sealed, choices_.importance->keep) || n_low != sealed - n_high) {
    fail(ErrorCode::kCorruptData, "[load keys and values] expected the blocks of {} tokens, found {} high and {} low", n_tokens,
         n_high, n_low);
  }
  reserve(static_cast<size_t>(n_tokens));
  in.copy_to(high_.data(), n_high * layout_->high_head_bytes * shape_.n_kv_heads);
  in.copy_to(low_.data(), n_low * layout_->low_head_bytes * shape_.n_kv_heads);
  tail_.load(in);
  if (tail_.size() != static_cast<uint64_t>(n_tokens) - sealed * kBlockTokens) {
    fail(ErrorCode::kCorruptData, "[load keys and values] expected {} recent tokens, found {}",
         static_cast<uint64_t>(n_tokens) - sealed * kBlockTokens, tail_.size());
  }
  for (Buffer* buffer : {&balance_, &sizes_, &tail_importance_}) in.copy_to(buffer->data(), buffer->size());
  in.finish();
  n_tokens_ = n_tokens;
  n_high_ = n_high;
  n_low_ = n_low;
  balanced_ = balanced;
}

}  // namespace mneme
