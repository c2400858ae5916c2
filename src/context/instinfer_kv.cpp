#include "context/instinfer_kv.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/parallel.h"
#include "context/attention_spans.h"
#include "kernels/vector_ops.h"

namespace mneme {
namespace {

constexpr size_t kHalf = size_t{2} << 20;  ///< Bytes that are read while others are computed with.

/// ceil(density * n), but no more for what is rounding alone.
uint64_t share_of(float density, uint64_t n) {
  const double wish = std::ceil(static_cast<double>(density) * static_cast<double>(n) - 1e-6);
  return std::clamp<uint64_t>(static_cast<uint64_t>(wish), 1, std::max<uint64_t>(n, 1));
}

uint64_t work_bytes(const PageGroups& layout, uint64_t n_blocks) {
  const uint64_t item = std::max(layout.token_bytes(), layout.n_channel_pages() * PageGroups::kPage);
  return 2 * std::max(item, std::min<uint64_t>(kHalf, n_blocks * layout.block_bytes()));
}

/// Logits of all query heads, and two rows a kv head to choose by.
uint64_t score_bytes(const KvShape& shape, const SealRhythm& rhythm, uint64_t n_blocks) {
  const uint64_t n_heads = std::max(shape.n_heads, shape.n_kv_heads), tokens = (n_blocks + 1) * rhythm.block_tokens;
  return (n_heads * (tokens + rhythm.residual) + 2 * shape.n_kv_heads * tokens) * sizeof(float);
}

}  // namespace

SealRhythm InstInferKv::rhythm_of(const KvChoices& choices) {
  return {choices.residual, PageGroups::kPage / 2 / choices.storage->channels};
}

PageGroups InstInferKv::layout_of(const KvShape& shape, const KvChoices& choices) {
  return {shape, choices.storage->channels, choices.storage->density < 1};
}

StateSpec InstInferKv::spec(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens) {
  layout_of(shape, choices);  // refuses what cannot be
  const uint64_t fixed = OpenTail::reserved_bytes(shape, rhythm_of(choices).tail_tokens(max_tokens)) +
                         Buffer::reserved_bytes(size_t{shape.n_kv_heads} * shape.value_dim * sizeof(float));
  return StateSpec([=](uint64_t) { return fixed; });
}

uint64_t InstInferKv::working_bytes(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens) {
  const SealRhythm rhythm = rhythm_of(choices);
  const uint64_t most = rhythm.sealed(max_tokens);
  if (most == 0) return 0;
  return Buffer::reserved_bytes(work_bytes(layout_of(shape, choices), most)) +
         (choices.storage->density < 1 ? score_bytes(shape, rhythm, most) : 0);
}

uint64_t InstInferKv::disk_bytes(const KvShape& shape, const KvChoices& choices, uint64_t n_tokens) {
  return KvFile::disk_bytes(rhythm_of(choices).sealed(n_tokens) * layout_of(shape, choices).block_bytes());
}

InstInferKv::InstInferKv(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens, Ledger& ledger)
    : StreamedKv(shape, rhythm_of(choices), max_tokens, ledger),
      choices_(choices),
      layout_(layout_of(shape, choices)),
      dense_(choices.storage->density >= 1),
      file_(ledger, "keys and values"),
      mean_(ledger, Tag::kKv, size_t{shape.n_kv_heads} * shape.value_dim * sizeof(float), "mean of values"),
      heads_(shape.n_kv_heads) {
  std::fill_n(mean_.as<float>().data(), mean_.as<float>().size(), 0.0f);
}

uint64_t InstInferKv::bytes() const {
  return tail_.bytes() + Buffer::reserved_bytes(mean_.size());
}

std::span<const float> InstInferKv::mean_value(size_t head) const {
  return {reinterpret_cast<const float*>(mean_.data()) + head * shape_.value_dim, shape_.value_dim};
}

void InstInferKv::begin_call(uint64_t n_blocks) {
  work_ = Buffer(ledger_, Tag::kScratch, work_bytes(layout_, n_blocks), "pages under way");
  if (!dense_) scores_ = ledger_.reserve(Tag::kScratch, score_bytes(shape_, rhythm_, n_blocks), "scores of tokens");
}

void InstInferKv::end_call() {
  work_ = Buffer();
  scores_.release();
  for (Head& head : heads_) {
    head.logits = {};
    head.room = {};
  }
}

void InstInferKv::extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) {
  KvQueries seen = queries;
  if (dense_) seen.role = TokenRole::kGiven;
  StreamedKv::extend(rows, seen, out, out_stride);
}

bool InstInferKv::stream(const PageList& list, FunctionRef<void(size_t first, size_t n, std::byte* const* data)> use) {
  const std::optional<PageFailure> failure = stream_pages(file_.descriptor(), list, {work_.data(), work_.size()}, use);
  fetches_.wanted += list.bytes() / PageGroups::kPage;
  fetches_.bytes += list.bytes();
  if (!failure) return true;
  const PageList::Item& item = list[failure->item];
  trouble_ = fmt::format("[read keys and values] kv head {}, tokens {} to {}: {}", item.head,
                         item.block * layout_.block_tokens, (item.block + 1) * layout_.block_tokens - 1,
                         failure->error > 0 ? std::strerror(failure->error) : "the file ends before them");
  return false;
}

// Given tokens: every token group of every block.

void InstInferKv::attend_blocks(const KvQueries& queries, size_t first, size_t n, uint64_t begin, uint64_t end,
                                float* out, size_t out_stride) {
  if (begin >= end || !trouble_.empty()) return;
  const size_t n_heads = shape_.n_kv_heads, group = queries.n_heads / n_heads, dim = shape_.key_dim;
  PageList list;
  for (uint64_t block = begin; block < end; ++block) {
    for (size_t head = 0; head < n_heads; ++head) {
      list.begin_item(block, head);
      list.add(layout_.head_at(block, head), layout_.token_bytes());
    }
  }
  const std::vector<uint32_t> none(kTaskTokens, 0), all(kTaskTokens, static_cast<uint32_t>(layout_.group_tokens));
  const size_t token_tasks = div_up(n, kTaskTokens);
  stream(list, [&](size_t first_item, size_t n_items, std::byte* const* data) {
    parallel_dynamic(queries.n_heads * token_tasks, [&](size_t task) {
      const size_t query_head = task / token_tasks, token = first + task % token_tasks * kTaskTokens;
      const size_t n_rows = std::min(kTaskTokens, first + n - token);
      const kernels::AttentionQueries q = rows_of(queries, query_head, token, n_rows);
      const kernels::AttentionTriple result = triple(query_head, token, out, out_stride);
      for (size_t i = 0; i < n_items; ++i) {
        if (list[first_item + i].head != query_head / group) continue;
        for (size_t t = 0; t < layout_.block_tokens; t += layout_.group_tokens) {
          kernels::attend(q,
                          {layout_.key(data[i], t), layout_.value(data[i], t), dim * 2, size_t{shape_.value_dim} * 2,
                           DType::kF16, none.data(), all.data()},
                          result);
        }
      }
    });
  });
  fetches_.passed += (end - begin) * n_heads * layout_.block_tokens * (dim + shape_.value_dim) * 2;
}

// Generated tokens: SparF.

void InstInferKv::attend_generated(const KvQueries& queries, size_t token, int64_t position, float* out) {
  const size_t group = queries.n_heads / shape_.n_kv_heads, value_dim = shape_.value_dim;
  const float* const q = queries.q + token * queries.q_stride;
  const size_t n_all = static_cast<size_t>(position) + 1;
  for (Head& head : heads_) {
    head.tokens.clear();
    head.shares.assign(group, {});
  }
  std::vector<float> max(queries.n_heads, -std::numeric_limits<float>::infinity()), sum(queries.n_heads, 0.0f);
  std::fill_n(out, queries.n_heads * value_dim, 0.0f);
  if (n_sealed_ > 0) {
    if (!score_sealed(q, group, n_all)) return;
    choose(q, queries, n_all);
    if (!attend_chosen(q, queries, max.data(), sum.data(), out)) return;
  }
  parallel_dynamic(shape_.n_kv_heads, [&](size_t head) {
    finish(head, queries, q, position,
           {max.data() + head * group, sum.data() + head * group, out + head * group * value_dim, value_dim});
  });
}

/// Products of the wanted channels, for all sealed tokens.
bool InstInferKv::score_sealed(const float* q, size_t group, size_t n_all) {
  const size_t n_heads = shape_.n_kv_heads, dim = shape_.key_dim, tokens = layout_.block_tokens, m = layout_.channels;
  const size_t r = share_of(choices_.storage->density, dim);
  std::vector<std::vector<size_t>> pages(n_heads);  // with a wanted channel, ascending
  for (size_t head = 0; head < n_heads; ++head) {
    Head& state = heads_[head];
    sparf_channels(q + head * group * dim, group, dim, r, state.channels);
    state.logits.assign(group * n_all, 0.0f);
    for (const uint32_t c : state.channels) {
      if (pages[head].empty() || pages[head].back() != c / m) pages[head].push_back(c / m);
    }
  }
  PageList list;
  for (uint64_t block = 0; block < n_sealed_; ++block) {
    for (size_t head = 0; head < n_heads; ++head) {
      list.begin_item(block, head);
      for (const size_t page : pages[head]) list.add(layout_.channel_page_at(block, head, page), PageGroups::kPage);
    }
  }
  fetches_.passed += n_heads * r * n_old() * 2;
  return stream(list, [&](size_t first, size_t n, std::byte* const* data) {
    parallel_dynamic(n, [&](size_t i) {
      const PageList::Item& item = list[first + i];
      Head& state = heads_[item.head];
      std::vector<float> column(tokens);
      size_t at = 0;  // of the channel's page in the item
      for (const uint32_t c : state.channels) {
        while (pages[item.head][at] != c / m) ++at;
        kernels::vector_ops().f16_to_f32(data[i] + at * PageGroups::kPage + c % m * tokens * 2, tokens, column.data());
        for (size_t g = 0; g < group; ++g) {
          kernels::vector_ops().add_scaled(column.data(), q[(item.head * group + g) * dim + c], tokens,
                                           state.logits.data() + g * n_all + item.block * tokens);
        }
      }
    });
  });
}

/// Adds the products of the tail, and chooses tokens.
void InstInferKv::choose(const float* q, const KvQueries& how, size_t n_all) {
  const size_t group = how.n_heads / shape_.n_kv_heads, dim = shape_.key_dim;
  const size_t old = n_old(), k = share_of(choices_.storage->density, old);
  parallel_dynamic(shape_.n_kv_heads, [&](size_t head) {
    Head& state = heads_[head];
    std::vector<float> key(dim);
    for (size_t i = old; i < n_all; ++i) {
      kernels::vector_ops().f16_to_f32(tail_.key(head, i - old), dim, key.data());
      for (size_t g = 0; g < group; ++g) {
        float sum = 0;
        for (const uint32_t c : state.channels) sum += q[(head * group + g) * dim + c] * key[c];
        state.logits[g * n_all + i] = sum;
      }
    }
    for (size_t g = 0; g < group; ++g) {
      float* const row = state.logits.data() + g * n_all;
      const float sharpness = sparf_sharpness(q + (head * group + g) * dim, dim, state.channels);
      kernels::vector_ops().scale(row, how.scale * sharpness, n_all, row);
      if (how.softcap > 0) kernels::vector_ops().softcap(row, how.softcap, n_all, row);
    }
    sparf_tokens(state.logits.data(), group, n_all, old, k, how.sinks != nullptr ? how.sinks + head * group : nullptr,
                 state.room, state.tokens, state.shares);
  });
}

/// Adds the chosen sealed tokens to the triples of all query heads.
bool InstInferKv::attend_chosen(const float* q, const KvQueries& how, float* max, float* sum, float* out) {
  const size_t n_heads = shape_.n_kv_heads, group = how.n_heads / n_heads, dim = shape_.key_dim;
  const size_t value_dim = shape_.value_dim, block_tokens = layout_.block_tokens, u = layout_.group_tokens;
  PageList list;
  std::vector<size_t> cursor(n_heads, 0);
  for (uint64_t block = 0; block < n_sealed_; ++block) {
    for (size_t head = 0; head < n_heads; ++head) {
      const std::vector<uint32_t>& tokens = heads_[head].tokens;
      size_t group_before = block_tokens;  // none
      for (size_t& at = cursor[head]; at < tokens.size() && tokens[at] / block_tokens == block; ++at) {
        const size_t token_group = tokens[at] % block_tokens / u;
        if (group_before == block_tokens) list.begin_item(block, head);
        if (token_group != group_before) list.add(layout_.group_at(block, head, token_group), 2 * PageGroups::kPage);
        group_before = token_group;
      }
    }
  }
  for (const Head& head : heads_) fetches_.passed += head.tokens.size() * (dim + value_dim) * 2;
  std::fill(cursor.begin(), cursor.end(), 0);
  return stream(list, [&](size_t first, size_t n, std::byte* const* data) {
    parallel_dynamic(n_heads, [&](size_t head) {
      const std::vector<uint32_t>& tokens = heads_[head].tokens;
      std::vector<std::byte> keys(block_tokens * dim * 2), values(block_tokens * value_dim * 2);
      const kernels::AttentionQueries rows{q + head * group * dim, group, dim, dim, value_dim, how.scale, how.softcap};
      for (size_t i = 0; i < n; ++i) {
        const PageList::Item& item = list[first + i];
        if (item.head != head) continue;
        // Wanted rows side by side; wanted groups follow each other in the item.
        size_t n_keys = 0, groups_before = 0;
        for (size_t& at = cursor[head]; at < tokens.size() && tokens[at] / block_tokens == item.block; ++at) {
          if (n_keys > 0 && tokens[at] / u != tokens[at - 1] / u) ++groups_before;
          const size_t in_item = groups_before * u + tokens[at] % u;
          std::memcpy(keys.data() + n_keys * dim * 2, layout_.key(data[i], in_item), dim * 2);
          std::memcpy(values.data() + n_keys * value_dim * 2, layout_.value(data[i], in_item), value_dim * 2);
          ++n_keys;
        }
        const std::vector<uint32_t> none(group, 0), all(group, static_cast<uint32_t>(n_keys));
        kernels::attend(rows,
                        {keys.data(), values.data(), dim * 2, value_dim * 2, DType::kF16, none.data(), all.data()},
                        {max + head * group, sum + head * group, out + head * group * value_dim, value_dim});
      }
    });
  });
}

/// Adds the tail, divides, and adds the mean of values for what was not seen.
void InstInferKv::finish(size_t head, const KvQueries& queries, const float* q, int64_t position,
                         const kernels::AttentionTriple& result) const {
  const size_t group = queries.n_heads / shape_.n_kv_heads, dim = shape_.key_dim, value_dim = shape_.value_dim;
  const SpanRows rows{
      head, 0, 1, group, {q + head * group * dim, group, dim, dim, value_dim, queries.scale, queries.softcap}};
  for (size_t run = 0; run < tail_.n_runs(tail_first()); ++run) {
    tail_.attend(rows, run, tail_first(), position, result);
  }
  kernels::finish_attention(result, group, value_dim,
                            queries.sinks != nullptr ? queries.sinks + head * group : nullptr);
  const std::vector<SparfShare>& shares = heads_[head].shares;
  if (std::all_of(shares.begin(), shares.end(), [](const SparfShare& s) { return s.rest == 0; })) return;

  const kernels::VectorOps& ops = kernels::vector_ops();
  const auto n_all = static_cast<float>(position + 1);
  std::vector<float> mean(value_dim), value(value_dim);
  ops.scale(mean_value(head).data(), static_cast<float>(n_old()), value_dim, mean.data());
  for (size_t i = 0; n_old() + i <= static_cast<uint64_t>(position); ++i) {
    ops.f16_to_f32(tail_.value(head, i), value_dim, value.data());
    ops.add(mean.data(), value.data(), value_dim, mean.data());
  }
  ops.scale(mean.data(), 1 / n_all, value_dim, mean.data());
  for (size_t g = 0; g < group; ++g) {
    float* const row = result.out + g * result.out_stride;
    ops.scale(row, shares[g].covered, value_dim, row);
    ops.add_scaled(mean.data(), shares[g].rest, value_dim, row);
  }
}

// Sealing, copies, saving.

void InstInferKv::seal() {
  const uint64_t block = n_sealed_ - 1;
  const size_t head_bytes = layout_.head_bytes(), at_once = work_.size() / head_bytes;
  try {
    for (size_t first = 0; first < shape_.n_kv_heads; first += at_once) {
      const size_t n = std::min(at_once, shape_.n_kv_heads - first);
      parallel_dynamic(n, [&](size_t i) {
        layout_.encode(tail_.key(first + i, 0), tail_.value(first + i, 0), work_.data() + i * head_bytes);
        add_to_mean(first + i, block, tail_.value(first + i, 0));
      });
      file_.write(layout_.head_at(block, first), {work_.data(), n * head_bytes});
    }
  } catch (const Error& e) {
    fail_with(e);
  }
}

/// Counts the values [block_tokens, value_dim] of a block in, the blocks before it being there.
void InstInferKv::add_to_mean(size_t head, uint64_t block, const std::byte* values) {
  const size_t dim = shape_.value_dim;
  std::vector<double> sum(dim, 0.0);
  std::vector<float> value(dim);
  for (size_t t = 0; t < layout_.block_tokens; ++t) {
    kernels::vector_ops().f16_to_f32(values + t * dim * 2, dim, value.data());
    for (size_t c = 0; c < dim; ++c) sum[c] += static_cast<double>(value[c]);
  }
  float* const mean = mean_.as<float>().data() + head * dim;
  for (size_t c = 0; c < dim; ++c) {
    const double of_block = sum[c] / static_cast<double>(layout_.block_tokens), before = static_cast<double>(mean[c]);
    mean[c] = static_cast<float>(before + (of_block - before) / static_cast<double>(block + 1));
  }
}

std::unique_ptr<LayerState> InstInferKv::copy(CopyScope&) const {
  auto copy = std::make_unique<InstInferKv>(shape_, choices_, max_tokens_, ledger_);
  copy->make_room(n_sealed_);
  if (trouble_.empty() && n_sealed_ > 0) {
    const AlignedBytes pages(layout_.head_bytes());
    const std::span<std::byte> all(pages.data(), layout_.head_bytes());
    for (uint64_t i = 0; i < n_sealed_ * shape_.n_kv_heads; ++i) {
      file_.read(i * all.size(), all);
      copy->file_.write(i * all.size(), all);
    }
  }
  std::memcpy(copy->mean_.data(), mean_.data(), mean_.size());
  copy_tail_to(*copy);
  copy->trouble_ = trouble_;
  return copy;
}

void InstInferKv::save_blocks(uint64_t first, uint64_t n, StateWriter& out) const {
  const AlignedBytes pages(layout_.token_bytes());
  const size_t u = layout_.group_tokens;
  for (uint64_t i = first * shape_.n_kv_heads; i < (first + n) * shape_.n_kv_heads; ++i) {
    file_.read(layout_.head_at(0, i), {pages.data(), layout_.token_bytes()});  // heads of blocks follow each other
    for (size_t t = 0; t < layout_.block_tokens; t += u)
      out.write({layout_.key(pages.data(), t), u * shape_.key_dim * 2});
    for (size_t t = 0; t < layout_.block_tokens; t += u) {
      out.write({layout_.value(pages.data(), t), u * shape_.value_dim * 2});
    }
  }
}

void InstInferKv::load_blocks(uint64_t first, uint64_t n, StateReader& in) {
  const AlignedBytes pages(layout_.head_bytes());
  for (uint64_t block = first; block < first + n; ++block) {
    for (size_t head = 0; head < shape_.n_kv_heads; ++head) {
      const auto keys = in.take(layout_.block_tokens * shape_.key_dim * 2);
      const auto values = in.take(layout_.block_tokens * shape_.value_dim * 2);
      layout_.encode(keys.data(), values.data(), pages.data());
      file_.write(layout_.head_at(block, head), {pages.data(), layout_.head_bytes()});
      add_to_mean(head, block, values.data());
    }
  }
}

}  // namespace mneme
