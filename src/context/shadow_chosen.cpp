// What a ShadowKv does for generated tokens: choosing chunks, bringing the missing ones, attention over them.

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "base/parallel.h"
#include "context/attention_spans.h"
#include "context/shadow_kv.h"
#include "context/shadow_sizes.h"
#include "kernels/prefetch.h"
#include "kernels/vector_ops.h"

namespace mneme {

void ShadowKv::attend_generated(const KvQueries& queries, size_t token, int64_t position, float* out) {
  const size_t group = queries.n_heads / shape_.n_kv_heads;
  const bool in_memory = values_->in_memory(0) != nullptr;
  parallel_dynamic(shape_.n_kv_heads, [&](size_t head) {
    Head& state = heads_[head];
    choose(head, queries.q + token * queries.q_stride + head * group * shape_.key_dim, queries, state);
    find_places(state);
    if (!in_memory) return;
    rebuild_missing(head);
    copy_missing(head);
    attend_chosen(head, queries, token, position, out);
  });
  for (const Head& state : heads_) {
    fetches_.wanted += state.chosen.size();
    fetches_.resident += state.chosen.size() - state.missing.size();
    if (in_memory) fetches_.bytes += state.missing.size() * kChunk * tail_.value_row_bytes();
  }
  if (in_memory) return;
  read_missing();
  if (!trouble_.empty()) return;
  parallel_dynamic(shape_.n_kv_heads, [&](size_t head) { attend_chosen(head, queries, token, position, out); });
}

void ShadowKv::choose(size_t head, const float* q, const KvQueries& how, Head& state) const {
  const size_t n_chunks = n_sealed_ * kBlockChunks;
  const size_t n = std::min<size_t>(sizes_->budget(n_sealed_), n_chunks - state.outlier_chunks.size());
  landmarks_.choose(head, q, how.n_heads / shape_.n_kv_heads, how, n_chunks, state.outlier_chunks, n, state.chosen);
}

/// Gives every chosen chunk a slot; those that were not resident are listed as missing. They take slots that were never
/// used, then those of the chunks that were chosen longest ago.
void ShadowKv::find_places(Head& state) const {
  const auto before = [](const Slot& a, const Slot& b) { return a.chunk < b.chunk; };
  const uint32_t now = ++state.n_chosen;
  state.missing.clear();
  size_t next = 0;
  for (const int32_t chunk : state.chosen) {
    while (next < state.resident.size() && state.resident[next].chunk < chunk) ++next;
    if (next < state.resident.size() && state.resident[next].chunk == chunk) {
      state.resident[next].wanted = now;
    } else {
      state.missing.push_back({chunk, 0, now});
    }
  }
  const auto n_unused = sizes_->slots(n_sealed_) - state.resident.size();
  auto unused = static_cast<uint32_t>(state.resident.size());
  if (state.missing.size() > n_unused) {
    const size_t n_evicted = state.missing.size() - n_unused;
    std::vector<Slot> old;
    for (const Slot& slot : state.resident) {
      if (slot.wanted != now) old.push_back(slot);
    }
    const auto last = old.begin() + static_cast<std::ptrdiff_t>(n_evicted) - 1;
    const auto longer_ago = [](const Slot& a, const Slot& b) {
      return a.wanted < b.wanted || (a.wanted == b.wanted && a.chunk < b.chunk);
    };
    std::nth_element(old.begin(), last, old.end(), longer_ago);
    const Slot newest = *last;
    std::erase_if(state.resident, [&](const Slot& slot) { return slot.wanted != now && !longer_ago(newest, slot); });
    for (size_t i = 0; i < n_evicted; ++i) state.missing[n_unused + i].slot = old[i].slot;
  }
  for (size_t i = 0; i < std::min<size_t>(n_unused, state.missing.size()); ++i) state.missing[i].slot = unused++;
  const auto n_kept = static_cast<std::ptrdiff_t>(state.resident.size());
  state.resident.insert(state.resident.end(), state.missing.begin(), state.missing.end());
  std::inplace_merge(state.resident.begin(), state.resident.begin() + n_kept, state.resident.end(), before);
}

/// Values of missing chunks, from memory.
void ShadowKv::copy_missing(size_t head) {
  const size_t value_row = tail_.value_row_bytes();
  for (const Slot& slot : heads_[head].missing) {
    const auto chunk = static_cast<size_t>(slot.chunk);
    const std::byte* const from =
        values_->in_memory(chunk / kBlockChunks) + (head * kBlock + chunk % kBlockChunks * kChunk) * value_row;
    std::memcpy(pair_at(slots_, slot.slot, head) + kChunk * tail_.key_row_bytes(), from, kChunk * value_row);
  }
}

/// Keys of missing chunks.
void ShadowKv::rebuild_missing(size_t head) {
  const std::span<const Slot> missing = heads_[head].missing;
  const size_t dim = shape_.key_dim;
  if (!fitted()) {  // exact keys
    for (const Slot& slot : missing) {
      const auto chunk = static_cast<size_t>(slot.chunk);
      std::memcpy(pair_at(slots_, slot.slot, head),
                  exact_keys(chunk / kBlockChunks, head) + chunk % kBlockChunks * kChunk * tail_.key_row_bytes(),
                  kChunk * tail_.key_row_bytes());
    }
    return;
  }
  if (missing.empty()) return;
  // Some chunks at once, from the head's part of the basis, which stays in the first cache.
  constexpr size_t kAtOnce = 3;
  const FeatureMap map{dim, map_.rank};
  const size_t chunk_bytes = kChunk * map.row_bytes();
  std::vector<float> part(map.rank * dim), keys(kAtOnce * kChunk * dim);
  std::vector<std::byte> rows(kAtOnce * chunk_bytes);
  map_.cut(basis(), head * dim, dim, part.data());
  for (size_t begin = 0; begin < missing.size(); begin += kAtOnce) {
    const auto some = missing.subspan(begin, std::min(kAtOnce, missing.size() - begin));
    for (size_t i = 0; i < some.size(); ++i) {
      std::memcpy(rows.data() + i * chunk_bytes, features(0) + static_cast<size_t>(some[i].chunk) * chunk_bytes,
                  chunk_bytes);
    }
    map.decode(part.data(), rows.data(), some.size() * kChunk, 0, dim, keys.data(), dim);
    for (size_t i = 0; i < some.size(); ++i) {
      float* const chunk_keys = keys.data() + i * kChunk * dim;
      runs_->rotate(chunk_keys, dim, kChunk, int64_t{some[i].chunk} * int64_t{kChunk});
      kernels::vector_ops().f32_to_f16(chunk_keys, kChunk * dim, pair_at(slots_, some[i].slot, head));
    }
  }
}

/// Fills the slots of missing chunks from the file, in batches; keys are rebuilt while the first is read.
void ShadowKv::read_missing() {
  struct Piece {
    size_t head, request, skip;
    Slot slot;
  };
  const size_t value_row = tail_.value_row_bytes(), chunk_bytes = kChunk * value_row;
  const size_t room = ValueTier::most_request_bytes(chunk_bytes);
  std::vector<Piece> pieces;
  std::vector<ReadRequest> requests;
  for (size_t head = 0; head < heads_.size(); ++head) {
    for (const Slot& slot : heads_[head].missing) {
      const auto chunk = static_cast<size_t>(slot.chunk);
      const size_t begin = (head * kBlock + chunk % kBlockChunks * kChunk) * value_row;
      size_t skip = 0;
      const ReadRequest request = values_->request(chunk / kBlockChunks, begin, begin + chunk_bytes,
                                                   work_.data() + requests.size() % kBatchReads * room, &skip);
      // Neighbours lie in the same page.
      const bool same =
          !requests.empty() && requests.back().offset == request.offset && requests.back().bytes == request.bytes;
      if (!same) requests.push_back(request);
      pieces.push_back({head, requests.size() - 1, skip, slot});
    }
  }
  AsyncReader& reader = reader_of_thread();
  size_t piece = 0;
  for (size_t begin = 0; begin == 0 || begin < requests.size(); begin += kBatchReads) {
    const auto batch =
        std::span<const ReadRequest>(requests).subspan(begin, std::min(kBatchReads, requests.size() - begin));
    std::vector<int> errors(batch.size());
    reader.start(batch);
    if (begin == 0) parallel_dynamic(heads_.size(), [&](size_t head) { rebuild_missing(head); });
    reader.finish([&](size_t i, int error) { errors[i] = error; });
    for (; piece < pieces.size() && pieces[piece].request < begin + batch.size(); ++piece) {
      const Piece& p = pieces[piece];
      int& error = errors[p.request - begin];
      if (error != 0) {  // a second chance
        reader.start(batch.subspan(p.request - begin, 1));
        reader.finish([&](size_t, int again) { error = again; });
      }
      if (error != 0) {
        trouble_ = fmt::format("[read values] kv head {}, chunk {}: {}", p.head, p.slot.chunk,
                               error > 0 ? std::strerror(error) : "the file ends before it");
        return;
      }
      std::memcpy(pair_at(slots_, p.slot.slot, p.head) + kChunk * tail_.key_row_bytes(),
                  requests[p.request].target + p.skip, chunk_bytes);
    }
    for (const ReadRequest& request : batch) fetches_.bytes += request.bytes;
  }
}

/// Attention of one token and kv head over outliers, chosen chunks in ascending order, so that it does not matter which
/// slots they lie in, and the tail. 64 keys at a time are put side by side.
void ShadowKv::attend_chosen(size_t head, const KvQueries& queries, size_t token, int64_t position, float* all_out) {
  const size_t group = queries.n_heads / shape_.n_kv_heads, dim = shape_.key_dim, value_dim = shape_.value_dim;
  const Head& state = heads_[head];
  const kernels::AttentionQueries q{queries.q + token * queries.q_stride + head * group * dim,
                                    group,
                                    dim,
                                    dim,
                                    value_dim,
                                    queries.scale,
                                    queries.softcap};
  float* const out = all_out + head * group * value_dim;
  std::vector<float> max(group, -std::numeric_limits<float>::infinity()), sum(group, 0.0f);
  std::fill_n(out, group * value_dim, 0.0f);
  const kernels::AttentionTriple result{max.data(), sum.data(), out, value_dim};

  // Keys and values; the places of outliers are a function of the tokens.
  std::vector<const std::byte*> pairs;
  for (size_t i = 0; i < state.outliers.size(); ++i) pairs.push_back(pair_at(outliers_, i, head));
  size_t next = 0;
  for (const Slot& slot : state.resident) {
    if (next == state.chosen.size()) break;
    if (slot.chunk != state.chosen[next]) continue;
    ++next;
    pairs.push_back(pair_at(slots_, slot.slot, head));
  }
  const size_t key_row = tail_.key_row_bytes(), value_row = tail_.value_row_bytes();
  std::vector<std::byte> keys(kBlock * key_row), values(kBlock * value_row);
  for (size_t begin = 0; begin < pairs.size(); begin += kBlockChunks) {
    const size_t n = std::min(kBlockChunks, pairs.size() - begin);
    for (size_t i = 0; i < n; ++i) {
      const std::byte* const from = pairs[begin + i];
      std::memcpy(keys.data() + i * kChunk * key_row, from, kChunk * key_row);
      std::memcpy(values.data() + i * kChunk * value_row, from + kChunk * key_row, kChunk * value_row);
      if (begin + kBlockChunks + i < pairs.size()) {
        kernels::prefetch_bytes(pairs[begin + kBlockChunks + i], pair_bytes_);
      }
    }
    const std::vector<uint32_t> none(group, 0), all(group, static_cast<uint32_t>(n * kChunk));
    kernels::attend(q, {keys.data(), values.data(), key_row, value_row, DType::kF16, none.data(), all.data()}, result);
  }
  const SpanRows rows{head, 0, 1, group, q};
  for (size_t run = 0; run < tail_.n_runs(tail_first()); ++run) tail_.attend(rows, run, tail_first(), position, result);
  kernels::finish_attention(result, group, value_dim,
                            queries.sinks != nullptr ? queries.sinks + head * group : nullptr);
}

std::vector<int32_t> ShadowKv::seen_chunks(size_t head) const {
  std::vector<int32_t> seen = heads_[head].chosen;
  seen.insert(seen.end(), heads_[head].outlier_chunks.begin(), heads_[head].outlier_chunks.end());
  std::sort(seen.begin(), seen.end());
  return seen;
}

}  // namespace mneme
