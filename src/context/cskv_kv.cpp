#include "context/cskv_kv.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/parallel.h"
#include "kernels/attention_parts.h"
#include "kernels/coded_attention.h"
#include "kernels/vector_ops.h"

namespace mneme {
namespace {

using kernels::CodedMatrix;
using kernels::kBlockTokens;

constexpr size_t kSpanBlocks = 4;
/// Features that one pass of the attention kernel weighs; more take several.
constexpr size_t kFeaturePass = 512;

SealRhythm rhythm_of(const KvChoices& choices) {
  return {choices.residual, kBlockTokens};
}

/// Rank of a density: a whole number of features a head.
size_t rank_of(float density, size_t n_heads, size_t dim) {
  const auto a_head = static_cast<size_t>(density * static_cast<float>(dim) + 1e-4f);
  if (a_head == 0) {
    fail(ErrorCode::kInvalidArgument,
         "[kv policy] expected at least one feature a head of cskv, found {} of {} channels", density, dim);
  }
  return n_heads * a_head;
}

CodedMatrix coded_keys(const KvChoices& choices, size_t rank) {
  return CodedMatrix(choices.keys.format, kBlockTokens, rank);
}

CodedMatrix coded_values(const KvChoices& choices, size_t rank) {
  return CodedMatrix(choices.values.format, rank, kBlockTokens);
}

}  // namespace

struct CskvKv::Layout {
  FeatureMap key_map, value_map;
  bool keys_coded, values_coded;
  CodedMatrix keys, values;  ///< [64 tokens, r_k], [r_v, 64 tokens].
  size_t key_bytes, value_bytes, block_bytes;

  Layout(const KvShape& shape, const KvChoices& choices, const KvRanks& ranks)
      : key_map{size_t{shape.n_kv_heads} * shape.key_dim, ranks.keys},
        value_map{size_t{shape.n_kv_heads} * shape.value_dim, ranks.values},
        keys_coded(choices.keys.coded),
        values_coded(choices.values.coded),
        key_bytes(key_block_bytes(choices, ranks.keys)),
        value_bytes(value_block_bytes(choices, ranks.values)),
        block_bytes(key_bytes + value_bytes) {
    if (keys_coded) keys = coded_keys(choices, ranks.keys);
    if (values_coded) values = coded_values(choices, ranks.values);
  }
};

uint64_t CskvKv::key_block_bytes(const KvChoices& choices, size_t rank) {
  return choices.keys.coded ? coded_keys(choices, rank).bytes() : kBlockTokens * FeatureMap{0, rank}.row_bytes();
}

uint64_t CskvKv::value_block_bytes(const KvChoices& choices, size_t rank) {
  return choices.values.coded ? coded_values(choices, rank).bytes() : kBlockTokens * FeatureMap{0, rank}.row_bytes();
}

KvRanks CskvKv::equal_ranks(const KvShape& shape, const KvChoices& choices) {
  return {rank_of(choices.features->keys, shape.n_kv_heads, shape.key_dim),
          rank_of(choices.features->values, shape.n_kv_heads, shape.value_dim)};
}

StateSpec CskvKv::spec(const KvShape& shape, const KvChoices& choices, const KvRanks& ranks, uint64_t max_tokens) {
  return spec_of(shape, rhythm_of(choices), Layout(shape, choices, ranks).block_bytes, max_tokens);
}

void CskvKv::check(const KvShape& shape, const KvChoices& choices, const KvBases* bases, size_t layer) {
  const KvRanks equal = equal_ranks(shape, choices);
  const size_t key_channels = size_t{shape.n_kv_heads} * shape.key_dim;
  const size_t value_channels = size_t{shape.n_kv_heads} * shape.value_dim;
  const auto wanted = [&] {
    return choices.features->measured ? fmt::format("1 to {} and 1 to {} features of {} and {} channels", key_channels,
                                                    value_channels, key_channels, value_channels)
                                      : fmt::format("{} and {} features of {} and {} channels", equal.keys,
                                                    equal.values, key_channels, value_channels);
  };
  if (bases == nullptr || layer >= bases->layers.size()) {
    fail(ErrorCode::kInvalidArgument, "[kv policy] expected bases of {} for keys and values of layer {}, found none",
         wanted(), layer);
  }
  const KvBases::Layer& found = bases->layers[layer];
  const auto within = [](const FeatureMap& map) { return map.rank >= 1 && map.rank <= map.channels; };
  const bool fits = found.keys.channels == key_channels && found.values.channels == value_channels &&
                    (choices.features->measured ? within(found.keys) && within(found.values) : found.ranks() == equal);
  if (!fits) {
    fail(ErrorCode::kInvalidArgument,
         "[kv policy] expected bases of {} for keys and values of layer {}, found {} and {} of {} and {}; they belong "
         "to "
         "another model or policy",
         wanted(), layer, found.keys.rank, found.values.rank, found.keys.channels, found.values.channels);
  }
}

std::unique_ptr<const CskvKv::Layout> CskvKv::checked_layout(const KvShape& shape, const KvChoices& choices,
                                                             const KvBases* bases, size_t layer) {
  check(shape, choices, bases, layer);
  return std::make_unique<const Layout>(shape, choices, bases->layers[layer].ranks());
}

CskvKv::CskvKv(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens,
               std::shared_ptr<const KvBases> bases, size_t layer, Ledger& ledger)
    : CskvKv(shape, choices, max_tokens, bases, layer, checked_layout(shape, choices, bases.get(), layer), ledger) {}

CskvKv::CskvKv(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens,
               std::shared_ptr<const KvBases> bases, size_t layer, std::unique_ptr<const Layout> layout, Ledger& ledger)
    : BlockKv(shape, rhythm_of(choices), layout->block_bytes, max_tokens, ledger, "features of keys and values"),
      choices_(choices),
      bases_(std::move(bases)),
      layer_(layer),
      layout_(std::move(layout)) {}

CskvKv::~CskvKv() = default;

void CskvKv::extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) {
  runs_.emplace(rows.angles != nullptr ? &rows.angles->spec() : nullptr);
  BlockKv::extend(rows, queries, out, out_stride);
  runs_.reset();
}

std::span<const std::byte> CskvKv::block(uint64_t i) const {
  return {at(i), layout_->block_bytes};
}

const std::byte* CskvKv::key_features(uint64_t block, std::vector<std::byte>& room) const {
  if (!layout_->keys_coded) return at(block);
  const size_t rank = layout_->key_map.rank;
  std::vector<float> z(kBlockTokens * rank);
  layout_->keys.decode(at(block), layout_->keys.whole(), {z.data(), rank, 1});
  room.resize(z.size() * 2);
  kernels::vector_ops().f32_to_f16(z.data(), z.size(), room.data());
  return room.data();
}

const std::byte* CskvKv::value_features(uint64_t block, std::vector<std::byte>& room) const {
  const std::byte* const from = at(block) + layout_->key_bytes;
  if (!layout_->values_coded) return from;
  const size_t rank = layout_->value_map.rank;
  std::vector<float> z(kBlockTokens * rank);
  layout_->values.decode(from, layout_->values.whole(), {z.data(), 1, rank});
  room.resize(z.size() * 2);
  kernels::vector_ops().f32_to_f16(z.data(), z.size(), room.data());
  return room.data();
}

void CskvKv::attend(const KvQueries& queries, size_t first, size_t n, float* out, size_t out_stride) {
  const int64_t first_query = n_tokens_ - static_cast<int64_t>(n);
  const size_t block_spans = div_up<size_t>(n_sealed_, kSpanBlocks);
  const size_t rank = layout_->value_map.rank, value_dim = shape_.value_dim;

  const auto attend_span = [&](const SpanRows& rows, size_t span, const kernels::AttentionTriple& result) {
    if (span >= block_spans) {
      tail_.attend(rows, span - block_spans, tail_first(), first_query, result);
      return;
    }
    std::vector<float> features(rows.queries.n_rows * rank);
    const uint64_t end = std::min<uint64_t>(n_sealed_, (span + 1) * kSpanBlocks);
    for (uint64_t block = span * kSpanBlocks; block < end; ++block) {
      attend_block(rows, block, {result.max, result.sum, features.data(), rank});
    }
    const float* const basis_of_head = basis().value_basis.data() + rows.head * value_dim;
    kernels::combine_rows(
        features.data(), rank, rows.queries.n_rows,
        {reinterpret_cast<const std::byte*>(basis_of_head), layout_->value_map.channels * sizeof(float), DType::kF32},
        rank, value_dim, result.out, result.out_stride);
  };
  attend_spans(shape_, queries, first, n, block_spans + tail_.n_runs(tail_first()), attend_span, out, out_stride);
}

/// Adds a block, with features in the place of values.
void CskvKv::attend_block(const SpanRows& rows, uint64_t block, const kernels::AttentionTriple& features) const {
  const size_t n_rows = rows.queries.n_rows, dim = shape_.key_dim, rank = layout_->value_map.rank;
  std::vector<std::byte> room;
  std::vector<float> keys(kBlockTokens * dim);
  layout_->key_map.decode(basis().key_basis.data(), key_features(block, room), kBlockTokens, rows.head * dim, dim,
                          keys.data(), dim);
  runs_->rotate(keys.data(), dim, kBlockTokens, static_cast<int64_t>(block * kBlockTokens));
  std::vector<std::byte> stored_keys(kBlockTokens * dim * 2);
  kernels::vector_ops().f32_to_f16(keys.data(), keys.size(), stored_keys.data());
  const std::byte* const values = value_features(block, room);
  const std::vector<uint32_t> none(n_rows, 0), all(n_rows, static_cast<uint32_t>(kBlockTokens));
  const std::vector<float> max(features.max, features.max + n_rows), sum(features.sum, features.sum + n_rows);
  for (size_t c = 0; c < rank; c += kFeaturePass) {  // every pass from the same maxima and sums
    std::copy(max.begin(), max.end(), features.max);
    std::copy(sum.begin(), sum.end(), features.sum);
    kernels::AttentionQueries queries = rows.queries;
    queries.value_dim = std::min(kFeaturePass, rank - c);
    kernels::attend(queries,
                    {stored_keys.data(), values + c * 2, dim * 2, rank * 2, DType::kF16, none.data(), all.data()},
                    {features.max, features.sum, features.out + c, features.out_stride});
  }
}

void CskvKv::seal() {
  const uint64_t block = n_sealed_ - 1;
  const kernels::VectorOps& ops = kernels::vector_ops();
  const size_t key_dim = shape_.key_dim, value_dim = shape_.value_dim;
  const FeatureMap key_map = layout_->key_map, value_map = layout_->value_map;
  std::vector<float> keys(kBlockTokens * key_map.channels), values(kBlockTokens * value_map.channels);
  parallel_dynamic(shape_.n_kv_heads, [&](size_t head) {
    std::vector<float> rows(kBlockTokens * std::max(key_dim, value_dim));
    ops.f16_to_f32(tail_.key(head, 0), kBlockTokens * key_dim, rows.data());
    runs_->rotate_back(rows.data(), key_dim, kBlockTokens, static_cast<int64_t>(block * kBlockTokens));
    for (size_t t = 0; t < kBlockTokens; ++t) {
      std::copy_n(rows.data() + t * key_dim, key_dim, keys.data() + t * key_map.channels + head * key_dim);
    }
    ops.f16_to_f32(tail_.value(head, 0), kBlockTokens * value_dim, rows.data());
    for (size_t t = 0; t < kBlockTokens; ++t) {
      std::copy_n(rows.data() + t * value_dim, value_dim, values.data() + t * value_map.channels + head * value_dim);
    }
  });
  const auto write = [&](const FeatureMap& map, const std::vector<float>& basis_of, const std::vector<float>& rows,
                         bool coded, std::byte* to, auto&& encode) {
    std::vector<std::byte> features(kBlockTokens * map.row_bytes());
    map.encode(basis_of.data(), rows.data(), kBlockTokens, features.data());
    if (!coded) {
      std::memcpy(to, features.data(), features.size());
      return;
    }
    std::vector<float> z(kBlockTokens * map.rank);
    ops.f16_to_f32(features.data(), z.size(), z.data());
    encode(z);
  };
  std::byte* const to = at(block);
  write(key_map, basis().key_basis, keys, layout_->keys_coded, to, [&](const std::vector<float>& z) {
    layout_->keys.encode({z.data(), key_map.rank, 1}, layout_->keys.whole(), to);
  });
  write(value_map, basis().value_basis, values, layout_->values_coded, to + layout_->key_bytes,
        [&](const std::vector<float>& z) {
          layout_->values.encode({z.data(), 1, value_map.rank}, layout_->values.whole(), to + layout_->key_bytes);
        });
}

void CskvKv::decode(uint64_t block, size_t head, const RopeSpec* rope, float* keys, float* values) const {
  const size_t key_dim = shape_.key_dim, value_dim = shape_.value_dim;
  std::vector<std::byte> room;
  layout_->key_map.decode(basis().key_basis.data(), key_features(block, room), kBlockTokens, head * key_dim, key_dim,
                          keys, key_dim);
  RopeRuns(rope).rotate(keys, key_dim, kBlockTokens, static_cast<int64_t>(block * kBlockTokens));
  layout_->value_map.decode(basis().value_basis.data(), value_features(block, room), kBlockTokens, head * value_dim,
                            value_dim, values, value_dim);
}

std::unique_ptr<LayerState> CskvKv::copy(CopyScope&) const {
  auto copy = std::make_unique<CskvKv>(shape_, choices_, max_tokens_, bases_, layer_, ledger_);
  copy_blocks_to(*copy);
  return copy;
}

}  // namespace mneme
