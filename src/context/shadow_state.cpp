// Copies of a ShadowKv, and how it is saved.

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "context/shadow_kv.h"
#include "context/shadow_sizes.h"

namespace mneme {
namespace {

constexpr uint64_t kPageBlocks = kPageTokens / static_cast<int64_t>(ShadowKv::kBlock);

/// Memory that a file without page cache can be read into.
class Pages {
 public:
  explicit Pages(size_t bytes)
      : data_(static_cast<std::byte*>(std::aligned_alloc(4096, round_up<size_t>(bytes, 4096)))) {
    if (data_ == nullptr) fail(ErrorCode::kOutOfBudget, "[values] expected {} bytes of memory, found less", bytes);
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  ~Pages() { std::free(data_); }
  std::byte* data() const { return data_; }

 private:
  std::byte* data_;
};

}  // namespace

bool ShadowKv::truncate(int64_t n_tokens) {
  const auto sealed = static_cast<int64_t>(n_sealed_ * kBlock);
  if (n_tokens < sealed || n_tokens > n_tokens_ || !trouble_.empty()) return false;
  tail_.truncate(static_cast<size_t>(n_tokens - sealed));
  n_tokens_ = n_tokens;
  return true;
}

std::unique_ptr<LayerState> ShadowKv::copy(CopyScope&) const {
  auto copy = std::make_unique<ShadowKv>(shape_, choices_, max_tokens_, ledger_);
  copy->grow(n_sealed_);
  std::memcpy(copy->keys_.data(), keys_.data(), keys_.committed());
  std::memcpy(copy->outliers_.data(), outliers_.data(), outliers_.committed());
  copy->landmarks_.copy_from(landmarks_, n_sealed_ * kBlockChunks);
  if (n_sealed_ > 0) {
    const Pages block(values_->stride());
    for (uint64_t i = 0; i < n_sealed_; ++i) {
      values_->read(i, 1, block.data());
      copy->values_->write(i, {block.data(), sizes_->value_bytes});
    }
  }
  copy->tail_.copy_from(tail_);
  for (size_t head = 0; head < heads_.size(); ++head) {
    copy->heads_[head].outliers = heads_[head].outliers;
    copy->heads_[head].outlier_chunks = heads_[head].outlier_chunks;
  }
  copy->n_tokens_ = n_tokens_;
  copy->n_sealed_ = n_sealed_;
  copy->trouble_ = trouble_;
  return copy;
}

PageRange ShadowKv::sealed_pages() const {
  const auto begin = static_cast<int64_t>(fit_blocks_ / kPageBlocks);
  return {begin, std::max(begin, static_cast<int64_t>(n_sealed_ / kPageBlocks))};
}

int64_t ShadowKv::first_page(int64_t) const {
  return static_cast<int64_t>(fit_blocks_ / kPageBlocks);
}

void ShadowKv::save_blocks(uint64_t first, uint64_t n, StateWriter& out) const {
  if (n == 0) return;
  landmarks_.save(first * kBlockChunks, n * kBlockChunks, out);
  const size_t exact_bytes = shape_.n_kv_heads * kBlock * tail_.key_row_bytes();
  if (fitted()) {
    out.write({features(first), n * kBlock * map_.row_bytes()});
  } else {
    out.write({exact_keys(first, 0), n * exact_bytes});
  }
  const Pages block(values_->stride());
  for (uint64_t i = first; i < first + n; ++i) {
    values_->read(i, 1, block.data());
    out.write({block.data(), sizes_->value_bytes});
  }
}

/// Blocks that there is room for, in the form that fitted() says.
void ShadowKv::load_blocks(uint64_t first, uint64_t n, StateReader& in) {
  if (n == 0) return;
  landmarks_.load(first * kBlockChunks, n * kBlockChunks, in);
  const size_t exact_bytes = shape_.n_kv_heads * kBlock * tail_.key_row_bytes();
  if (fitted()) {
    in.copy_to(features(first), n * kBlock * map_.row_bytes());
  } else {
    in.copy_to(exact_keys(first, 0), n * exact_bytes);
  }
  for (uint64_t i = first; i < first + n; ++i) values_->write(i, in.take(sizes_->value_bytes));
}

void ShadowKv::save_page(int64_t page, StateWriter& out) const {
  save_blocks(static_cast<uint64_t>(page) * kPageBlocks, kPageBlocks, out);
}

bool ShadowKv::save_rest(int64_t n_tokens, StateWriter& out) const {
  if (n_tokens != n_tokens_ || !trouble_.empty()) return false;
  out.put(n_tokens_);
  out.put(n_sealed_);
  if (fitted()) out.write({keys_.data(), map_.basis_bytes()});
  save_blocks(0, std::min(n_sealed_, fit_blocks_), out);
  const uint64_t in_pages = static_cast<uint64_t>(sealed_pages().end) * kPageBlocks;
  if (n_sealed_ > in_pages) save_blocks(in_pages, n_sealed_ - in_pages, out);
  for (size_t head = 0; head < heads_.size(); ++head) {
    const std::vector<Outlier>& outliers = heads_[head].outliers;
    out.put(uint64_t{outliers.size()});
    for (size_t i = 0; i < outliers.size(); ++i) {
      out.put(outliers[i].chunk);
      out.put(outliers[i].similarity);
      out.write({outliers_.data() + (i * shape_.n_kv_heads + head) * pair_bytes_, pair_bytes_});
    }
  }
  tail_.save(out);
  return true;
}

void ShadowKv::load_page(int64_t page, StateReader& in) {
  const uint64_t expected = std::max(n_sealed_, fit_blocks_);
  if (page < 0 || static_cast<uint64_t>(page) != expected / kPageBlocks || expected % kPageBlocks != 0 ||
      tail_.size() > 0) {
    fail(ErrorCode::kCorruptData, "[load keys and values] expected page {}, found page {}", expected / kPageBlocks,
         page);
  }
  const uint64_t end = expected + kPageBlocks;
  if (end > sizes_->sealed(max_tokens_)) {
    fail(ErrorCode::kContextOverflow, "[load keys and values] expected at most {} tokens of context, found more",
         max_tokens_);
  }
  grow(end);
  n_sealed_ = end;
  load_blocks(expected, kPageBlocks, in);
  n_tokens_ = static_cast<int64_t>(end * kBlock);
  in.finish();
}

void ShadowKv::load_rest(StateReader& in) {
  const auto n_tokens = in.get<int64_t>();
  const auto n_sealed = in.get<uint64_t>();
  const uint64_t paged = n_sealed_ == 0 ? fit_blocks_ : n_sealed_;  // what pages hold ends here
  // What was truncated may have more blocks than a fresh sequence of that length, but never fewer.
  const bool possible = n_tokens >= 0 && static_cast<uint64_t>(n_tokens) <= max_tokens_ &&
                        n_sealed <= sizes_->sealed(max_tokens_) &&
                        n_sealed * kBlock <= static_cast<uint64_t>(n_tokens) &&
                        n_sealed >= sizes_->sealed(static_cast<uint64_t>(n_tokens)) && n_sealed >= n_sealed_ &&
                        n_sealed < paged + kPageBlocks;
  if (!possible) {
    fail(ErrorCode::kCorruptData,
         "[load keys and values] expected the rest of {} blocks or a few more, found {} blocks for {} tokens",
         n_sealed_, n_sealed, n_tokens);
  }
  grow(n_sealed);
  n_sealed_ = n_sealed;
  if (fitted()) in.copy_to(keys_.data(), map_.basis_bytes());
  load_blocks(0, std::min(n_sealed, fit_blocks_), in);
  if (n_sealed > paged) load_blocks(paged, n_sealed - paged, in);
  for (size_t head = 0; head < heads_.size(); ++head) {
    Head& state = heads_[head];
    const auto n_outliers = in.get<uint64_t>();
    if (n_outliers > sizes_->outliers(n_sealed)) {
      fail(ErrorCode::kCorruptData, "[load keys and values] expected at most {} outlier chunks, found {}",
           sizes_->outliers(n_sealed), n_outliers);
    }
    state = Head();
    for (size_t i = 0; i < n_outliers; ++i) {
      const auto chunk = in.get<int32_t>();
      const auto similarity = in.get<float>();
      if (chunk < 0 || static_cast<uint64_t>(chunk) >= n_sealed * kBlockChunks) {
        fail(ErrorCode::kCorruptData, "[load keys and values] expected chunks below {}, found {}",
             n_sealed * kBlockChunks, chunk);
      }
      state.outliers.push_back({chunk, similarity});
      state.outlier_chunks.push_back(chunk);
      in.copy_to(pair_at(outliers_, i, head), pair_bytes_);
    }
    std::sort(state.outlier_chunks.begin(), state.outlier_chunks.end());
    if (std::adjacent_find(state.outlier_chunks.begin(), state.outlier_chunks.end()) != state.outlier_chunks.end()) {
      fail(ErrorCode::kCorruptData, "[load keys and values] expected each outlier chunk once, found one twice");
    }
  }
  tail_.load(in);
  if (tail_.size() != static_cast<uint64_t>(n_tokens) - n_sealed * kBlock) {
    fail(ErrorCode::kCorruptData, "[load keys and values] expected {} recent tokens, found {}",
         static_cast<uint64_t>(n_tokens) - n_sealed * kBlock, tail_.size());
  }
  in.finish();
  n_tokens_ = n_tokens;
}

}  // namespace mneme
