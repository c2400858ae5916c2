#include "context/landmarks.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/checked_math.h"
#include "kernels/attention_parts.h"
#include "kernels/selection.h"
#include "kernels/vector_ops.h"

namespace mneme {

uint64_t Landmarks::reserved_bytes(const KvShape& shape, uint64_t n_chunks) {
  return shape.n_kv_heads * round_up<uint64_t>(n_chunks * shape.key_dim * 2, GrowingBuffer::kStepBytes);
}

Landmarks::Landmarks(const KvShape& shape, uint64_t most_chunks, Ledger& ledger)
    : key_dim_(shape.key_dim), row_bytes_(size_t{shape.key_dim} * 2) {
  const size_t capacity = round_up<size_t>(std::max<uint64_t>(1, most_chunks) * row_bytes_, GrowingBuffer::kStepBytes);
  for (size_t head = 0; head < shape.n_kv_heads; ++head)
    heads_.emplace_back(ledger, Tag::kKv, capacity, "landmarks of keys");
}

void Landmarks::grow_to(uint64_t n_chunks) {
  for (GrowingBuffer& head : heads_) head.grow_to(n_chunks * row_bytes_);
}

void Landmarks::shrink_to(uint64_t n_chunks) {
  for (GrowingBuffer& head : heads_) head.shrink_to(n_chunks * row_bytes_);
}

uint64_t Landmarks::bytes() const {
  uint64_t sum = 0;
  for (const GrowingBuffer& head : heads_) sum += head.committed();
  return sum;
}

float Landmarks::set(uint64_t chunk, size_t head, const float* keys) {
  const kernels::VectorOps& ops = kernels::vector_ops();
  std::vector<float> mean(key_dim_, 0.0f);
  for (size_t t = 0; t < kTokens; ++t) ops.add(mean.data(), keys + t * key_dim_, key_dim_, mean.data());
  ops.scale(mean.data(), 1.0f / kTokens, key_dim_, mean.data());
  ops.f32_to_f16(mean.data(), key_dim_, at(chunk, head));
  const float mean_norm = std::sqrt(ops.dot(mean.data(), mean.data(), key_dim_));
  float least = 1;
  for (size_t t = 0; t < kTokens; ++t) {
    const float* const key = keys + t * key_dim_;
    const float norms = mean_norm * std::sqrt(ops.dot(key, key, key_dim_));
    const float cosine = norms > 0 ? ops.dot(mean.data(), key, key_dim_) / norms : 1.0f;
    if (cosine < least) least = cosine;  // a NaN is no outlier
  }
  return least;
}

void Landmarks::choose(size_t head, const float* q, size_t n_rows, const KvQueries& how, size_t n_chunks,
                       std::span<const int32_t> excluded, size_t n, std::vector<float>& scores,
                       std::vector<int32_t>& out) const {
  out.clear();
  if (n == 0) return;
  const kernels::VectorOps& ops = kernels::vector_ops();
  const bool all = n + excluded.size() >= n_chunks;
  scores.resize((n_rows + 1) * n_chunks);
  float* const worth = scores.data() + n_rows * n_chunks;
  std::fill_n(worth, n_chunks, 0.0f);
  if (!all) {
    std::vector<float> scaled(n_rows * key_dim_);
    ops.scale(q, how.scale, scaled.size(), scaled.data());
    kernels::score_rows(scaled.data(), key_dim_, n_rows, {at(0, head), row_bytes_, DType::kF16}, n_chunks, key_dim_,
                        scores.data(), n_chunks);
    for (size_t r = 0; r < n_rows; ++r) {
      float* const row = scores.data() + r * n_chunks;
      if (how.softcap > 0) ops.softcap(row, how.softcap, n_chunks, row);
      for (const int32_t chunk : excluded) row[chunk] = -std::numeric_limits<float>::infinity();
      ops.softmax(row, n_chunks, row);
      kernels::keep_larger(row, n_chunks, worth);  // a NaN is worth nothing
    }
  }
  for (const int32_t chunk : excluded) worth[chunk] = -1;
  float bound = 0;  // chunks above it are chosen, and the first ones at it
  size_t at_bound = n;
  if (!all) {
    bound = kernels::nth_largest(worth, n_chunks, n);
    at_bound = n - kernels::count_larger(worth, n_chunks, bound);
  }
  constexpr size_t kRun = 64;  // runs without one are passed over
  const float below = std::nextafter(bound, -1.0f);
  for (size_t begin = 0; begin < n_chunks && out.size() < n; begin += kRun) {
    const size_t end = std::min(n_chunks, begin + kRun);
    if (kernels::count_larger(worth + begin, end - begin, below) == 0) continue;
    for (size_t i = begin; i < end && out.size() < n; ++i) {
      if (worth[i] < bound || (worth[i] == bound && at_bound == 0)) continue;
      if (worth[i] == bound) --at_bound;
      out.push_back(static_cast<int32_t>(i));
    }
  }
}

void Landmarks::save(uint64_t first, uint64_t n, StateWriter& out) const {
  for (size_t head = 0; head < heads_.size(); ++head) out.write({at(first, head), n * row_bytes_});
}

void Landmarks::load(uint64_t first, uint64_t n, StateReader& in) {
  for (size_t head = 0; head < heads_.size(); ++head) in.copy_to(at(first, head), n * row_bytes_);
}

void Landmarks::copy_from(const Landmarks& other, uint64_t n_chunks) {
  for (size_t head = 0; head < heads_.size(); ++head)
    std::memcpy(at(0, head), other.at(0, head), n_chunks * row_bytes_);
}

}  // namespace mneme
