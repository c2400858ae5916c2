#include "context/shadow_kv.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/checked_math.h"
#include "base/error.h"
#include "base/parallel.h"
#include "context/attention_spans.h"
#include "context/shadow_sizes.h"
#include "kernels/vector_ops.h"

namespace mneme {
namespace {

/// Blocks whose keys and values exist at the same time for given tokens.
constexpr uint64_t kPanelBlocks = 16;

}  // namespace

SealRhythm ShadowKv::rhythm_of(const KvChoices& choices) {
  return {choices.residual, kBlock, choices.shadow->fit / kBlock};
}

StateSpec ShadowKv::spec(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens) {
  const Sizes sizes(shape, choices, max_tokens);
  return StateSpec([sizes](uint64_t tokens) { return sizes.total(sizes.sealed(tokens)); });
}

uint64_t ShadowKv::working_bytes(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens) {
  const Sizes sizes(shape, choices, max_tokens);
  const uint64_t most = sizes.sealed(max_tokens);
  return sizes.work(std::min(most, kPanelBlocks), kBatchReads) + (most >= sizes.fit_blocks ? sizes.fit_work() : 0);
}

uint64_t ShadowKv::disk_bytes(const KvShape& shape, const KvChoices& choices, uint64_t n_tokens) {
  const Sizes sizes(shape, choices, n_tokens);
  return choices.shadow->on_disk ? ValueTier::disk_bytes(sizes.value_bytes, sizes.sealed(n_tokens)) : 0;
}

ShadowKv::ShadowKv(const KvShape& shape, const KvChoices& choices, uint64_t max_tokens, Ledger& ledger)
    : StreamedKv(shape, rhythm_of(choices), max_tokens, ledger),
      choices_(choices),
      sizes_(std::make_unique<const Sizes>(shape, choices, max_tokens)),
      map_(sizes_->map),
      fit_blocks_(sizes_->fit_blocks),
      pair_bytes_(sizes_->pair_bytes),
      landmarks_(shape, sizes_->sealed(max_tokens) * kBlockChunks, ledger),
      heads_(shape.n_kv_heads) {
  const uint64_t most = sizes_->sealed(max_tokens);
  const auto buffer = [&](uint64_t bytes, const char* what) {
    return GrowingBuffer(ledger, Tag::kKv, round_up<size_t>(std::max<uint64_t>(1, bytes), GrowingBuffer::kStepBytes),
                         what);
  };
  keys_ = buffer(sizes_->keys(most), "low-rank keys");
  outliers_ = buffer(sizes_->pairs(sizes_->outliers(most)), "outlier chunks");
  slots_ = buffer(sizes_->pairs(sizes_->slots(most)), "chosen chunks");
  values_ = std::make_unique<ValueTier>(sizes_->value_bytes, most, choices.shadow->on_disk, ledger);
}

ShadowKv::~ShadowKv() = default;

AsyncReader& ShadowKv::reader_of_thread() {
  static thread_local AsyncReader reader;
  return reader;
}

uint64_t ShadowKv::bytes() const {
  return tail_.bytes() + keys_.committed() + landmarks_.bytes() + values_->memory_bytes() + outliers_.committed() +
         slots_.committed();
}

void ShadowKv::make_room(uint64_t n_blocks) {
  const size_t keys = keys_.committed(), outliers = outliers_.committed(), slots = slots_.committed();
  try {
    keys_.grow_to(sizes_->keys(n_blocks));
    outliers_.grow_to(sizes_->pairs(sizes_->outliers(n_blocks)));
    slots_.grow_to(sizes_->pairs(sizes_->slots(n_blocks)));
    landmarks_.grow_to(n_blocks * kBlockChunks);
    values_->grow_to(n_blocks);
  } catch (...) {
    keys_.shrink_to(keys);
    outliers_.shrink_to(outliers);
    slots_.shrink_to(slots);
    landmarks_.shrink_to(n_sealed_ * kBlockChunks);
    throw;
  }
}

void ShadowKv::begin_call(uint64_t n_blocks) {
  work_ =
      Buffer(ledger_, Tag::kScratch, sizes_->work(std::min(n_blocks, kPanelBlocks), kBatchReads), "chunks under way");
  if (!fitted() && n_blocks >= fit_blocks_) {
    fit_work_ = ledger_.reserve(Tag::kScratch, sizes_->fit_work(), "basis of keys");
  }
}

void ShadowKv::end_call() {
  work_ = Buffer();
  fit_work_.release();
}

size_t ShadowKv::given_at_once() const {
  if (fitted()) return StreamedKv::given_at_once();
  return fit_blocks_ * kBlock + rhythm_.residual - static_cast<size_t>(n_tokens_);
}

void ShadowKv::extend(const KvRows& rows, const KvQueries& queries, float* out, size_t out_stride) {
  runs_.emplace(rows.angles != nullptr ? &rows.angles->spec() : nullptr);
  StreamedKv::extend(rows, queries, out, out_stride);
  runs_.reset();
}

std::byte* ShadowKv::exact_keys(uint64_t block, size_t head) {
  return keys_.data() + (block * shape_.n_kv_heads + head) * kBlock * tail_.key_row_bytes();
}

/// Rotated keys of tokens [first, first + n) of a block in f32, n <= the longest run.
void ShadowKv::rebuild(uint64_t block, size_t first, size_t n, size_t head, const RopeRuns& runs, float* keys) const {
  const size_t dim = shape_.key_dim;
  if (!fitted()) {
    kernels::vector_ops().f16_to_f32(exact_keys(block, head) + first * tail_.key_row_bytes(), n * dim, keys);
    return;
  }
  map_.decode(basis(), features(block) + first * map_.row_bytes(), n, head * dim, dim, keys, dim);
  runs.rotate(keys, dim, n, static_cast<int64_t>(block * kBlock + first));
}

void ShadowKv::decode_keys(uint64_t block, size_t head, const RopeSpec* rope, float* keys) const {
  rebuild(block, 0, kBlock, head, RopeRuns(rope), keys);
}

void ShadowKv::attend_blocks(const KvQueries& queries, size_t first, size_t n, uint64_t begin, uint64_t end, float* out,
                             size_t out_stride) {
  const size_t dim = shape_.key_dim, n_heads = shape_.n_kv_heads, group = queries.n_heads / n_heads;
  const size_t key_block = kBlock * tail_.key_row_bytes(), value_block = kBlock * tail_.value_row_bytes();
  const std::vector<uint32_t> none(kTaskTokens, 0), all(kTaskTokens, static_cast<uint32_t>(kBlock));
  for (uint64_t panel = begin; panel < end && trouble_.empty(); panel += kPanelBlocks) {
    const uint64_t n_blocks = std::min(kPanelBlocks, end - panel);
    std::byte* const panel_keys = work_.data();
    std::byte* const panel_values = panel_keys + round_up<size_t>(sizes_->panel_key_bytes(n_blocks), 4096);
    std::vector<ReadRequest> requests;
    for (uint64_t i = 0; i < n_blocks && values_->in_memory(0) == nullptr; ++i) {
      size_t skip = 0;
      requests.push_back(
          values_->request(panel + i, 0, values_->stride(), panel_values + i * values_->stride(), &skip));
    }
    reader_of_thread().start(requests);
    if (fitted()) {
      parallel_dynamic(n_blocks * n_heads, [&](size_t i) {
        std::vector<float> keys(kBlock * dim);
        rebuild(panel + i / n_heads, 0, kBlock, i % n_heads, *runs_, keys.data());
        kernels::vector_ops().f32_to_f16(keys.data(), keys.size(), panel_keys + i * key_block);
      });
    }
    int failed = 0;
    reader_of_thread().finish([&](size_t, int error) { failed = error != 0 ? error : failed; });
    if (failed != 0) {
      trouble_ = fmt::format("[read values] tokens {} to {}: {}", panel * kBlock, (panel + n_blocks) * kBlock - 1,
                             failed > 0 ? std::strerror(failed) : "the file ends before them");
      return;
    }
    const size_t token_tasks = div_up(n, kTaskTokens);
    parallel_dynamic(queries.n_heads * token_tasks, [&](size_t task) {
      const size_t query_head = task / token_tasks, head = query_head / group;
      const size_t token = first + task % token_tasks * kTaskTokens, n_rows = std::min(kTaskTokens, first + n - token);
      const kernels::AttentionQueries q = rows_of(queries, query_head, token, n_rows);
      for (uint64_t i = 0; i < n_blocks; ++i) {
        const std::byte* const in_memory = values_->in_memory(panel + i);
        const std::byte* const values = in_memory != nullptr ? in_memory : panel_values + i * values_->stride();
        const std::byte* const keys =
            fitted() ? panel_keys + (i * n_heads + head) * key_block : exact_keys(panel + i, head);
        kernels::attend(q,
                        {keys, values + head * value_block, tail_.key_row_bytes(), tail_.value_row_bytes(), DType::kF16,
                         none.data(), all.data()},
                        triple(query_head, token, out, out_stride));
      }
    });
  }
}

// Sealing.

void ShadowKv::seal() {
  const uint64_t block = n_sealed_ - 1;
  const size_t dim = shape_.key_dim, n_heads = shape_.n_kv_heads, channels = map_.channels;
  const size_t key_bytes = kBlock * tail_.key_row_bytes(), value_bytes = kBlock * tail_.value_row_bytes();
  const bool was_fitted = block >= fit_blocks_;
  std::vector<float> rows(was_fitted ? kBlock * channels : 0);
  std::vector<std::byte> values(n_heads * value_bytes);
  parallel_dynamic(n_heads, [&](size_t head) {
    std::vector<float> keys(kBlock * dim);
    kernels::vector_ops().f16_to_f32(tail_.key(head, 0), keys.size(), keys.data());
    float similarity[kBlockChunks];
    for (size_t i = 0; i < kBlockChunks; ++i) {
      similarity[i] = landmarks_.set(block * kBlockChunks + i, head, keys.data() + i * kChunk * dim);
    }
    keep_outliers(head, similarity);
    std::memcpy(values.data() + head * value_bytes, tail_.value(head, 0), value_bytes);
    if (was_fitted) {
      runs_->rotate_back(keys.data(), dim, kBlock, static_cast<int64_t>(block * kBlock));
      for (size_t t = 0; t < kBlock; ++t)
        std::copy_n(keys.data() + t * dim, dim, rows.data() + t * channels + head * dim);
    } else {
      std::memcpy(exact_keys(block, head), tail_.key(head, 0), key_bytes);
    }
  });
  try {
    values_->write(block, values);
    if (was_fitted) map_.encode(basis(), rows.data(), kBlock, features(block));
    if (n_sealed_ == fit_blocks_) fit();
  } catch (const Error& e) {
    fail_with(e);
  }
}

/// Lets the chunks of the block just sealed, still in the tail, compete for places among the outliers of a head.
void ShadowKv::keep_outliers(size_t head, const float* similarity) {
  Head& state = heads_[head];
  const uint64_t room = sizes_->outliers(n_sealed_);
  for (size_t i = 0; i < kBlockChunks && room > 0; ++i) {
    const Outlier outlier{static_cast<int32_t>((n_sealed_ - 1) * kBlockChunks + i), similarity[i]};
    size_t place = state.outliers.size();
    if (place < room) {
      state.outliers.push_back(outlier);
    } else {
      const auto least_odd =
          std::max_element(state.outliers.begin(), state.outliers.end(), [](const Outlier& a, const Outlier& b) {
            return a.similarity < b.similarity || (a.similarity == b.similarity && a.chunk < b.chunk);
          });
      if (outlier.similarity >= least_odd->similarity) continue;
      *least_odd = outlier;
      place = static_cast<size_t>(least_odd - state.outliers.begin());
    }
    std::byte* const to = pair_at(outliers_, place, head);
    std::memcpy(to, tail_.key(head, i * kChunk), kChunk * tail_.key_row_bytes());
    std::memcpy(to + kChunk * tail_.key_row_bytes(), tail_.value(head, i * kChunk), kChunk * tail_.value_row_bytes());
  }
  state.outlier_chunks.clear();
  for (const Outlier& outlier : state.outliers) state.outlier_chunks.push_back(outlier.chunk);
  std::sort(state.outlier_chunks.begin(), state.outlier_chunks.end());
}

/// Finds the basis and puts it and features in the place of exact keys. Throws Error for keys that are not finite.
void ShadowKv::fit() {
  const size_t dim = shape_.key_dim, n_heads = shape_.n_kv_heads;
  std::vector<float> rows(kBlock * map_.channels), basis(map_.rank * map_.channels);
  const auto read_block = [&](uint64_t block) {
    parallel_dynamic(n_heads, [&](size_t head) {
      std::vector<float> keys(kBlock * dim);
      kernels::vector_ops().f16_to_f32(exact_keys(block, head), keys.size(), keys.data());
      runs_->rotate_back(keys.data(), dim, kBlock, static_cast<int64_t>(block * kBlock));
      for (size_t t = 0; t < kBlock; ++t)
        std::copy_n(keys.data() + t * dim, dim, rows.data() + t * map_.channels + head * dim);
    });
  };
  if (map_.rank < map_.channels) {
    SecondMoments moments(map_.channels);
    for (uint64_t block = 0; block < fit_blocks_; ++block) {
      read_block(block);
      moments.add(rows.data(), kBlock);
    }
    moments.basis(map_.rank, basis.data());
  } else {
    SecondMoments(map_.channels).basis(map_.rank, basis.data());
  }
  std::vector<std::byte> features(fit_blocks_ * kBlock * map_.row_bytes());
  for (uint64_t block = 0; block < fit_blocks_; ++block) {
    read_block(block);
    map_.encode(basis.data(), rows.data(), kBlock, features.data() + block * kBlock * map_.row_bytes());
  }
  std::memcpy(keys_.data(), basis.data(), map_.basis_bytes());
  std::memcpy(this->features(0), features.data(), features.size());
}

}  // namespace mneme
