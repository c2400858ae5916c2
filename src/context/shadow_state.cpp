// Copies of a ShadowKv, and how it is saved.

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "context/shadow_kv.h"
#include "context/shadow_sizes.h"

namespace mneme {

std::unique_ptr<LayerState> ShadowKv::copy(CopyScope&) const {
  auto copy = std::make_unique<ShadowKv>(shape_, choices_, max_tokens_, ledger_);
  copy->make_room(n_sealed_);
  std::memcpy(copy->keys_.data(), keys_.data(), keys_.committed());
  std::memcpy(copy->outliers_.data(), outliers_.data(), outliers_.committed());
  copy->landmarks_.copy_from(landmarks_, n_sealed_ * kBlockChunks);
  if (n_sealed_ > 0) {
    const AlignedBytes block(values_->stride());
    for (uint64_t i = 0; i < n_sealed_; ++i) {
      values_->read(i, 1, block.data());
      copy->values_->write(i, {block.data(), sizes_->value_bytes});
    }
  }
  for (size_t head = 0; head < heads_.size(); ++head) {
    copy->heads_[head].outliers = heads_[head].outliers;
    copy->heads_[head].outlier_chunks = heads_[head].outlier_chunks;
  }
  copy_tail_to(*copy);
  copy->trouble_ = trouble_;
  return copy;
}

void ShadowKv::save_blocks(uint64_t first, uint64_t n, StateWriter& out) const {
  if (first == 0 && fitted()) out.write({keys_.data(), map_.basis_bytes()});
  landmarks_.save(first * kBlockChunks, n * kBlockChunks, out);
  const size_t exact_bytes = shape_.n_kv_heads * kBlock * tail_.key_row_bytes();
  if (fitted()) {
    out.write({features(first), n * kBlock * map_.row_bytes()});
  } else {
    out.write({exact_keys(first, 0), n * exact_bytes});
  }
  const AlignedBytes block(values_->stride());
  for (uint64_t i = first; i < first + n; ++i) {
    values_->read(i, 1, block.data());
    out.write({block.data(), sizes_->value_bytes});
  }
}

void ShadowKv::load_blocks(uint64_t first, uint64_t n, StateReader& in) {
  if (first == 0 && fitted()) in.copy_to(keys_.data(), map_.basis_bytes());
  landmarks_.load(first * kBlockChunks, n * kBlockChunks, in);
  const size_t exact_bytes = shape_.n_kv_heads * kBlock * tail_.key_row_bytes();
  if (fitted()) {
    in.copy_to(features(first), n * kBlock * map_.row_bytes());
  } else {
    in.copy_to(exact_keys(first, 0), n * exact_bytes);
  }
  for (uint64_t i = first; i < first + n; ++i) values_->write(i, in.take(sizes_->value_bytes));
}

void ShadowKv::save_beside_blocks(StateWriter& out) const {
  for (size_t head = 0; head < heads_.size(); ++head) {
    const std::vector<Outlier>& outliers = heads_[head].outliers;
    out.put(uint64_t{outliers.size()});
    for (size_t i = 0; i < outliers.size(); ++i) {
      out.put(outliers[i].chunk);
      out.put(outliers[i].similarity);
      out.write({outliers_.data() + (i * shape_.n_kv_heads + head) * pair_bytes_, pair_bytes_});
    }
  }
}

void ShadowKv::load_beside_blocks(StateReader& in) {
  for (size_t head = 0; head < heads_.size(); ++head) {
    Head& state = heads_[head];
    const auto n_outliers = in.get<uint64_t>();
    if (n_outliers > sizes_->outliers(n_sealed_)) {
      fail(ErrorCode::kCorruptData, "[load keys and values] expected at most {} outlier chunks, found {}",
           sizes_->outliers(n_sealed_), n_outliers);
    }
    state = Head();
    for (size_t i = 0; i < n_outliers; ++i) {
      const auto chunk = in.get<int32_t>();
      const auto similarity = in.get<float>();
      if (chunk < 0 || static_cast<uint64_t>(chunk) >= n_sealed_ * kBlockChunks) {
        fail(ErrorCode::kCorruptData, "[load keys and values] expected chunks below {}, found {}",
             n_sealed_ * kBlockChunks, chunk);
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
}

}  // namespace mneme
