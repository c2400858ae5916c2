#include "context/merged_kv.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/parallel.h"
#include "context/attention_spans.h"
#include "kernels/vector_ops.h"

namespace mneme {
namespace {

using kernels::BlockExceptions;
using kernels::CodedMatrix;
using kernels::kBlockTokens;

constexpr size_t kKept = 2;  ///< Tokens of a block that may keep their own vectors.
constexpr uint8_t kNoToken = 255;
constexpr size_t kSpanBlocks = 4;
constexpr float kPi = 3.14159265f;

uint64_t sealed_blocks(uint64_t n_tokens, uint32_t residual) {
  return n_tokens > residual ? (n_tokens - residual) / kBlockTokens : 0;
}

uint32_t tail_capacity(uint32_t residual, uint64_t max_tokens) {
  return static_cast<uint32_t>(std::min<uint64_t>(max_tokens, uint64_t{residual} + kBlockTokens));
}

float norm_of(const float* x, size_t n) { return std::sqrt(kernels::vector_ops().dot(x, x, n)); }

}  // namespace

/// One side (keys or values) of a block: directions of all heads, then norms [2 layers][64] f16, then the numbers of the kept
/// tokens [2], then their rows [2 layers][2][heads * dim] f16.
struct MergedPair::Layout {
  struct Side {
    size_t n_heads, dim;
    bool coded;
    CodedMatrix matrix;
    size_t head_bytes, norms_at, tokens_at, rows_at, bytes;

    Side(size_t heads, size_t d, const KvChoices::Codec& codec, bool is_keys) : n_heads(heads), dim(d), coded(codec.coded) {
      if (coded) matrix = is_keys ? CodedMatrix(codec.format, kBlockTokens, d) : CodedMatrix(codec.format, d, kBlockTokens);
      head_bytes = coded ? matrix.bytes() : kBlockTokens * d * 2;
      norms_at = heads * head_bytes;
      tokens_at = norms_at + 2 * kBlockTokens * 2;
      rows_at = tokens_at + kKept;
      bytes = rows_at + 2 * kKept * heads * d * 2;
    }
    size_t width() const { return n_heads * dim; }
    CodedMatrix::ConstValues strides(const float* x, bool is_keys) const {
      return is_keys ? CodedMatrix::ConstValues{x, dim, 1} : CodedMatrix::ConstValues{x, 1, dim};
    }
    CodedMatrix::Values strides(float* x, bool is_keys) const {
      return is_keys ? CodedMatrix::Values{x, dim, 1} : CodedMatrix::Values{x, 1, dim};
    }
    void read_norms(const std::byte* side, size_t layer, float* norms) const {
      kernels::vector_ops().f16_to_f32(side + norms_at + layer * kBlockTokens * 2, kBlockTokens, norms);
    }
    BlockExceptions exceptions(const std::byte* side, size_t layer, size_t head) const {
      const auto* tokens = reinterpret_cast<const uint8_t*>(side + tokens_at);
      return {static_cast<size_t>(std::find(tokens, tokens + kKept, kNoToken) - tokens), tokens,
              side + rows_at + (layer * kKept * n_heads + head) * dim * 2, n_heads * dim * 2};
    }
  };
  Side keys, values;

  Layout(const KvShape& shape, const KvChoices& choices)
      : keys(shape.n_kv_heads, shape.key_dim, choices.keys, true),
        values(shape.n_kv_heads, shape.value_dim, choices.values, false) {}
  size_t block_bytes() const { return keys.bytes + values.bytes; }
};

uint64_t MergedPair::block_bytes(const KvShape& shape, const KvChoices& choices) { return Layout(shape, choices).block_bytes(); }

MergedPair::MergedPair(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens, uint32_t residual, Ledger& ledger)
    : shape_(shape),
      choices_(choices),
      max_tokens_(max_tokens),
      residual_(residual),
      ledger_(ledger),
      layout_(std::make_unique<const Layout>(shape, choices)),
      blocks_(ledger, Tag::kKv,
              round_up<size_t>(std::max<size_t>(1, sealed_blocks(max_tokens, residual)) * layout_->block_bytes(),
                               GrowingBuffer::kStepBytes),
              "merged keys and values") {}

MergedPair::~MergedPair() = default;

void MergedPair::reserve(uint64_t n_blocks) {
  blocks_.grow_to(std::max<size_t>(blocks_.committed(), n_blocks * layout_->block_bytes()));
}

void MergedPair::seal() {
  std::byte* const block = blocks_.data() + static_cast<size_t>(n_blocks_) * layout_->block_bytes();
  merge_side(true, block);
  merge_side(false, block + layout_->keys.bytes);
  ++n_blocks_;
}

void MergedPair::merge_side(bool keys, std::byte* side) {
  const Layout::Side& layout = keys ? layout_->keys : layout_->values;
  const KvChoices::Sharing& sharing = *choices_.sharing;
  const size_t width = layout.width(), dim = layout.dim;
  const kernels::VectorOps& ops = kernels::vector_ops();
  // x[layer][token][all heads]
  std::array<std::vector<float>, 2> x;
  for (size_t layer = 0; layer < 2; ++layer) {
    x[layer].resize(kBlockTokens * width);
    const auto at = static_cast<size_t>(n_blocks_ * static_cast<int64_t>(kBlockTokens) - *tail_firsts_[layer]);
    for (size_t t = 0; t < kBlockTokens; ++t) {
      for (size_t head = 0; head < layout.n_heads; ++head) {
        const std::byte* const row = keys ? tails_[layer]->key(head, at + t) : tails_[layer]->value(head, at + t);
        ops.f16_to_f32(row, dim, x[layer].data() + t * width + head * dim);
      }
    }
  }
  std::vector<float> direction(kBlockTokens * width), norms(2 * kBlockTokens), angle(kBlockTokens);
  for (size_t t = 0; t < kBlockTokens; ++t) {
    const float* const a = x[0].data() + t * width;
    const float* const b = x[1].data() + t * width;
    const float na = norms[t] = norm_of(a, width), nb = norms[kBlockTokens + t] = norm_of(b, width);
    const float cosine = na > 0 && nb > 0 ? std::clamp(ops.dot(a, b, width) / (na * nb), -1.0f, 1.0f) : 1.0f;
    const float w = angle[t] = std::acos(cosine), s = std::sin(w);
    // Nearly equal directions: the plain mean; a vector of zeros takes the other's direction.
    float wa = 1 - sharing.t, wb = sharing.t;
    if (s > 1e-4f) {
      wa = std::sin((1 - sharing.t) * w) / s;
      wb = std::sin(sharing.t * w) / s;
    }
    float* const e = direction.data() + t * width;
    for (size_t c = 0; c < width; ++c) e[c] = (na > 0 ? wa * a[c] / na : 0) + (nb > 0 ? wb * b[c] / nb : 0);
    const float size = norm_of(e, width);
    if (size > 0) ops.scale(e, 1 / size, width, e);
  }
  // Which tokens keep both vectors.
  Range& range = ranges_[keys ? 0 : 1];
  for (const float w : angle) {
    range.min = std::min(range.min, w);
    range.max = std::max(range.max, w);
  }
  const float limit = range.max - sharing.gamma * (range.max - range.min);
  std::vector<uint8_t> kept;
  for (size_t t = 0; t < kBlockTokens; ++t) {
    const bool first = n_blocks_ == 0 && t == 0;
    if (first || angle[t] > limit || angle[t] > kPi - 1e-3f) kept.push_back(static_cast<uint8_t>(t));
  }
  std::stable_sort(kept.begin(), kept.end(), [&](uint8_t a, uint8_t b) {
    const bool a_first = n_blocks_ == 0 && a == 0, b_first = n_blocks_ == 0 && b == 0;
    return a_first != b_first ? a_first : angle[a] > angle[b];
  });
  if (kept.size() > kKept) kept.resize(kKept);
  std::sort(kept.begin(), kept.end());

  // Directions, and norms over what they decode to.
  std::vector<float> decoded(kBlockTokens * width);
  parallel_dynamic(layout.n_heads, [&](size_t head) {
    std::vector<float> part(kBlockTokens * dim);
    for (size_t t = 0; t < kBlockTokens; ++t) std::copy_n(direction.data() + t * width + head * dim, dim, part.data() + t * dim);
    std::byte* const at = side + head * layout.head_bytes;
    if (layout.coded) {
      layout.matrix.encode(layout.strides(std::as_const(part).data(), keys), layout.matrix.whole(), at);
      layout.matrix.decode(at, layout.matrix.whole(), layout.strides(part.data(), keys));
    } else {
      ops.f32_to_f16(part.data(), part.size(), at);
      ops.f16_to_f32(at, part.size(), part.data());
    }
    for (size_t t = 0; t < kBlockTokens; ++t) std::copy_n(part.data() + t * dim, dim, decoded.data() + t * width + head * dim);
  });
  for (size_t t = 0; t < kBlockTokens; ++t) {
    const float size = norm_of(decoded.data() + t * width, width);
    for (size_t layer = 0; layer < 2; ++layer) norms[layer * kBlockTokens + t] /= size > 0 ? size : 1;
  }
  ops.f32_to_f16(norms.data(), norms.size(), side + layout.norms_at);
  auto* const tokens = reinterpret_cast<uint8_t*>(side + layout.tokens_at);
  std::fill_n(tokens, kKept, kNoToken);
  std::copy(kept.begin(), kept.end(), tokens);
  for (size_t layer = 0; layer < 2; ++layer) {
    for (size_t i = 0; i < kept.size(); ++i) {
      ops.f32_to_f16(x[layer].data() + kept[i] * width, width, side + layout.rows_at + (layer * kKept + i) * width * 2);
    }
  }
}

void MergedPair::attend(int64_t block, size_t layer, size_t head, const kernels::AttentionQueries& queries,
                        const kernels::AttentionTriple& result) const {
  const std::byte* const keys = blocks_.data() + static_cast<size_t>(block) * layout_->block_bytes();
  const std::byte* const values = keys + layout_->keys.bytes;
  alignas(64) float key_norms[kBlockTokens], value_norms[kBlockTokens];
  layout_->keys.read_norms(keys, layer, key_norms);
  layout_->values.read_norms(values, layer, value_norms);
  const std::vector<uint32_t> first(queries.n_rows, 0), last(queries.n_rows, static_cast<uint32_t>(kBlockTokens));
  kernels::attend_block(queries,
                        {layout_->keys.coded ? &layout_->keys.matrix : nullptr, keys + head * layout_->keys.head_bytes,
                         shape_.key_dim, nullptr, key_norms},
                        {layout_->values.coded ? &layout_->values.matrix : nullptr,
                         values + head * layout_->values.head_bytes, value_norms},
                        first.data(), last.data(), result, layout_->keys.exceptions(keys, layer, head),
                        layout_->values.exceptions(values, layer, head));
}

void MergedPair::decode(int64_t block, size_t layer, float* keys, float* values) const {
  const std::byte* side = blocks_.data() + static_cast<size_t>(block) * layout_->block_bytes();
  for (const bool is_keys : {true, false}) {
    const Layout::Side& layout = is_keys ? layout_->keys : layout_->values;
    float* const out = is_keys ? keys : values;
    const size_t width = layout.width(), dim = layout.dim;
    std::vector<float> part(kBlockTokens * dim), norms(kBlockTokens);
    layout.read_norms(side, layer, norms.data());
    for (size_t head = 0; head < layout.n_heads; ++head) {
      const std::byte* const at = side + head * layout.head_bytes;
      if (layout.coded) {
        layout.matrix.decode(at, layout.matrix.whole(), layout.strides(part.data(), is_keys));
      } else {
        kernels::vector_ops().f16_to_f32(at, part.size(), part.data());
      }
      for (size_t t = 0; t < kBlockTokens; ++t) {
        for (size_t c = 0; c < dim; ++c) out[t * width + head * dim + c] = norms[t] * part[t * dim + c];
      }
      const BlockExceptions kept = layout.exceptions(side, layer, head);
      for (size_t i = 0; i < kept.n; ++i) {
        kernels::vector_ops().f16_to_f32(kept.rows + i * kept.stride_bytes, dim, out + kept.tokens[i] * width + head * dim);
      }
    }
    side += layout.bytes;
  }
}

std::shared_ptr<MergedPair> MergedPair::copy() const {
  auto copy = std::make_shared<MergedPair>(shape_, choices_, max_tokens_, residual_, ledger_);
  copy->blocks_.grow_to(blocks_.committed());
  std::memcpy(copy->blocks_.data(), blocks_.data(), blocks_.committed());
  copy->ranges_ = ranges_;
  copy->n_blocks_ = n_blocks_;
  return copy;
}

void MergedPair::save(StateWriter& out) const {
  out.put(n_blocks_);
  for (const Range& range : ranges_) {
    out.put(range.min);
    out.put(range.max);
  }
  out.write({blocks_.data(), static_cast<size_t>(n_blocks_) * layout_->block_bytes()});
}

void MergedPair::load(StateReader& in) {
  const auto n_blocks = in.get<int64_t>();
  if (n_blocks < 0 || static_cast<uint64_t>(n_blocks) > sealed_blocks(max_tokens_, residual_)) {
    fail(ErrorCode::kCorruptData, "[load merged layers] expected at most {} blocks, found {}",
         sealed_blocks(max_tokens_, residual_), n_blocks);
  }
  for (Range& range : ranges_) {
    range.min = in.get<float>();
    range.max = in.get<float>();
  }
  reserve(static_cast<uint64_t>(n_blocks));
  in.copy_to(blocks_.data(), static_cast<size_t>(n_blocks) * layout_->block_bytes());
  for (int64_t block = 0; block < n_blocks; ++block) {
    const std::byte* const side = blocks_.data() + static_cast<size_t>(block) * layout_->block_bytes();
    for (const std::byte* tokens : {side + layout_->keys.tokens_at, side + layout_->keys.bytes + layout_->values.tokens_at}) {
      for (size_t i = 0; i < kKept; ++i) {
        const auto token = std::to_integer<uint8_t>(tokens[i]);
        if (token >= kBlockTokens && token != kNoToken) {
          fail(ErrorCode::kCorruptData, "[load merged layers] expected tokens below {}, found {}", kBlockTokens, token);
        }
      }
    }
  }
  n_blocks_ = n_blocks;
}

uint32_t MergedKv::residual_of(const KvChoices& choices, uint32_t max_batch) {
  return std::max(choices.residual, round_up<uint32_t>(max_batch, kBlockTokens));
}

StateSpec MergedKv::spec(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens, uint32_t max_batch, bool upper) {
  const uint32_t residual = residual_of(choices, max_batch);
  const uint64_t tail = OpenTail::reserved_bytes(shape, tail_capacity(residual, max_tokens));
  const uint64_t block = upper ? MergedPair::block_bytes(shape, choices) : 0;
  return StateSpec([=](uint64_t tokens) {
    return tail + round_up<uint64_t>(sealed_blocks(tokens, residual) * block, GrowingBuffer::kStepBytes);
  });
}

MergedKv::MergedKv(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens, uint32_t max_batch, bool upper,
                   std::shared_ptr<MergedPair> pair, Ledger& ledger)
    : shape_(shape),
      choices_(choices),
      max_tokens_(max_tokens),
      max_batch_(max_batch),
      residual_(residual_of(choices, max_batch)),
      upper_(upper),
      ledger_(ledger),
      pair_(std::move(pair)),
      tail_(shape, tail_capacity(residual_, max_tokens), ledger) {
  pair_->attach(upper_ ? 1 : 0, &tail_, &tail_first_);
}

void MergedKv::reserve(size_t n_tokens) {
  const uint64_t end = static_cast<uint64_t>(n_tokens_) + n_tokens;
  if (end > max_tokens_) {
    fail(ErrorCode::kContextOverflow, "[append] expected at most {} tokens of context, found {}", max_tokens_, end);
  }
  if (n_tokens > max_batch_) {
    fail(ErrorCode::kInvalidArgument, "[append] expected at most {} tokens at once, found {}", max_batch_, n_tokens);
  }
  if (pair_->n_blocks() < tail_first_ / static_cast<int64_t>(kBlockTokens)) {  // two layers that were not saved together
    fail(ErrorCode::kCorruptData, "[append] expected {} merged blocks, found {}", tail_first_ / static_cast<int64_t>(kBlockTokens),
         pair_->n_blocks());
  }
  pair_->reserve(sealed_blocks(end, residual_));
}

void MergedKv::extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) {
  for (size_t first = 0; first < rows.n_tokens;) {
    const size_t n = std::min<size_t>(rows.n_tokens - first, residual_ + kBlockTokens - tail_.size());
    tail_.append(rows, first, n);
    n_tokens_ += static_cast<int64_t>(n);
    attend(queries, first, n, out + first * out_stride, out_stride);
    if (tail_.size() == residual_ + kBlockTokens) {
      // The lower layer comes here first, and finds in the upper one's tail what both have seen before this pass.
      const int64_t block = tail_first_ / static_cast<int64_t>(kBlockTokens);
      if (pair_->n_blocks() == block) pair_->seal();
      tail_.drop_oldest(kBlockTokens);
      tail_first_ += static_cast<int64_t>(kBlockTokens);
    }
    first += n;
  }
}

void MergedKv::attend(const KvQueries& queries, size_t first, size_t n, float* out, size_t out_stride) const {
  const int64_t first_query = n_tokens_ - static_cast<int64_t>(n);
  const int64_t n_blocks = tail_first_ / static_cast<int64_t>(kBlockTokens);
  const size_t block_spans = div_up<size_t>(static_cast<size_t>(n_blocks), kSpanBlocks);
  const auto attend_span = [&](const SpanRows& rows, size_t span, const kernels::AttentionTriple& result) {
    if (span < block_spans) {
      const auto begin = static_cast<int64_t>(span * kSpanBlocks);
      const int64_t end = std::min(n_blocks, begin + static_cast<int64_t>(kSpanBlocks));
      for (int64_t block = begin; block < end; ++block) pair_->attend(block, upper_ ? 1 : 0, rows.head, rows.queries, result);
      return;
    }
    tail_.attend(rows, span - block_spans, tail_first_, first_query, result);
  };
  attend_spans(shape_, queries, first, n, block_spans + tail_.n_runs(tail_first_), attend_span, out, out_stride);
}

bool MergedKv::truncate(int64_t n_tokens) {
  if (n_tokens < tail_first_ || n_tokens > n_tokens_) return false;
  tail_.truncate(static_cast<size_t>(n_tokens - tail_first_));
  n_tokens_ = n_tokens;
  return true;
}

std::unique_ptr<LayerState> MergedKv::copy(CopyScope& scope) const {
  const auto pair = scope.shared<MergedPair>(pair_.get(), [&] { return pair_->copy(); });
  auto copy = std::make_unique<MergedKv>(shape_, choices_, max_tokens_, max_batch_, upper_, pair, ledger_);
  copy->tail_.copy_from(tail_);
  copy->n_tokens_ = n_tokens_;
  copy->tail_first_ = tail_first_;
  return copy;
}

bool MergedKv::save_rest(int64_t n_tokens, StateWriter& out) const {
  if (n_tokens != n_tokens_) return false;
  out.put(n_tokens_);
  tail_.save(out);
  if (upper_) pair_->save(out);
  return true;
}

void MergedKv::load_rest(StateReader& in) {
  const auto n_tokens = in.get<int64_t>();
  tail_.load(in);
  const int64_t first = n_tokens - static_cast<int64_t>(tail_.size());
  if (first < 0 || first % static_cast<int64_t>(kBlockTokens) != 0 || static_cast<uint64_t>(n_tokens) > max_tokens_) {
    fail(ErrorCode::kCorruptData, "[load merged layers] expected whole blocks before {} recent tokens, found {} tokens in all",
         tail_.size(), n_tokens);
  }
  if (upper_) {
    pair_->load(in);
    if (pair_->n_blocks() * static_cast<int64_t>(kBlockTokens) != first) {
      fail(ErrorCode::kCorruptData, "[load merged layers] expected {} blocks, found {}", first / static_cast<int64_t>(kBlockTokens),
           pair_->n_blocks());
    }
  }
  in.finish();
  n_tokens_ = n_tokens;
  tail_first_ = first;
}

}  // namespace mneme
