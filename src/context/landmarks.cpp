#include "context/landmarks.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/checked_math.h"
#include "kernels/selection.h"
#include "kernels/vector_ops.h"

namespace mneme {
namespace {

constexpr float kLowest = std::numeric_limits<float>::lowest();
constexpr float kNever = -std::numeric_limits<float>::infinity();

/// Working memory of a thread, whatever the layer and head: it stays in the cache.
std::span<float> scratch(size_t n) {
  static thread_local std::vector<float> memory;
  if (memory.size() < n) memory.resize(n);
  return {memory.data(), n};
}

}  // namespace

kernels::CodedMatrix Landmarks::matrix_of(const KvShape& shape) {
  constexpr kernels::CodedFormat kFormat{8, kernels::CodedFormat::Groups::kAlongDepth,
                                         kernels::CodedFormat::Scales::kFloat16, 64};
  return {kFormat, kLanes, shape.key_dim};
}

uint64_t Landmarks::reserved_bytes(const KvShape& shape, uint64_t n_chunks) {
  const uint64_t head = div_up<uint64_t>(n_chunks, kLanes) * matrix_of(shape).bytes();
  return shape.n_kv_heads * round_up<uint64_t>(head, GrowingBuffer::kStepBytes);
}

Landmarks::Landmarks(const KvShape& shape, uint64_t most_chunks, Ledger& ledger)
    : key_dim_(shape.key_dim), matrix_(matrix_of(shape)) {
  const size_t most = div_up<size_t>(std::max<uint64_t>(1, most_chunks), kLanes) * matrix_.bytes();
  for (size_t head = 0; head < shape.n_kv_heads; ++head) {
    heads_.emplace_back(ledger, Tag::kKv, round_up<size_t>(most, GrowingBuffer::kStepBytes), "landmarks of keys");
  }
}

void Landmarks::grow_to(uint64_t n_chunks) {
  for (GrowingBuffer& head : heads_) head.grow_to(div_up<uint64_t>(n_chunks, kLanes) * matrix_.bytes());
}

void Landmarks::shrink_to(uint64_t n_chunks) {
  for (GrowingBuffer& head : heads_) head.shrink_to(div_up<uint64_t>(n_chunks, kLanes) * matrix_.bytes());
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
  const size_t lane = chunk % kLanes;
  matrix_.encode({mean.data(), 0, 1}, {lane, lane + 1, 0, key_dim_}, matrix(chunk / kLanes, head));
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

void Landmarks::decode(uint64_t chunk, size_t head, float* out) const {
  const size_t lane = chunk % kLanes;
  matrix_.decode(matrix(chunk / kLanes, head), {lane, lane + 1, 0, key_dim_}, {out, 0, 1});
}

void Landmarks::choose(size_t head, const float* q, size_t n_rows, const KvQueries& how, size_t n_chunks,
                       std::span<const int32_t> excluded, size_t n, std::vector<int32_t>& out) const {
  out.clear();
  if (n == 0) return;
  const size_t n_matrices = div_up(n_chunks, kLanes), stride = n_matrices * kLanes;
  const std::span<float> memory = scratch((n_rows + 1) * stride + n_rows * key_dim_ + 16);
  float* const scores = memory.data();
  float* const worth = scores + n_rows * stride;
  float* const scaled = worth + stride;
  std::fill_n(worth, n_chunks, kLowest);
  if (n + excluded.size() < n_chunks) {
    std::fill_n(scores, n_rows * stride, 0.0f);
    kernels::vector_ops().scale(q, how.scale, n_rows * key_dim_, scaled);
    constexpr size_t kAtOnce = 8;
    for (size_t begin = 0; begin < n_matrices; begin += kAtOnce) {
      kernels::CodedMatrix::Product products[kAtOnce];
      const size_t end = std::min(n_matrices, begin + kAtOnce);
      for (size_t i = begin; i < end; ++i) {
        const size_t next = i + kAtOnce;
        products[i - begin] = {matrix(i, head), scaled, scores + i * kLanes,
                               next < n_matrices ? matrix(next, head) : nullptr};
      }
      matrix_.multiply({products, end - begin}, key_dim_, n_rows, stride);
    }
    for (size_t r = 0; r < n_rows; ++r) {
      float* const row = scores + r * stride;
      if (how.softcap > 0) kernels::vector_ops().softcap(row, how.softcap, n_chunks, row);
      for (const int32_t chunk : excluded) row[chunk] = kNever;
      kernels::keep_larger(row, n_chunks, -kernels::log_sum_exp(row, n_chunks), worth);  // a NaN is worth nothing
    }
  }
  for (const int32_t chunk : excluded) worth[chunk] = kNever;
  const float bound = kernels::nth_largest(worth, n_chunks, n);
  std::vector<uint32_t> found(n_chunks + kernels::kFindRoom);
  found.resize(kernels::find_at_least(worth, n_chunks, bound, found.data()));
  size_t too_many = found.size() - n;  // of those at the bound the last ones
  out.resize(n);
  for (size_t i = found.size(), to = n; i-- > 0;) {
    if (too_many > 0 && worth[found[i]] == bound) {
      --too_many;
    } else {
      out[--to] = static_cast<int32_t>(found[i]);
    }
  }
}

void Landmarks::save(uint64_t first, uint64_t n, StateWriter& out) const {
  assert(first % kLanes == 0);
  for (size_t head = 0; head < heads_.size(); ++head)
    out.write({matrix(first / kLanes, head), div_up<uint64_t>(n, kLanes) * matrix_.bytes()});
}

void Landmarks::load(uint64_t first, uint64_t n, StateReader& in) {
  assert(first % kLanes == 0);
  for (size_t head = 0; head < heads_.size(); ++head)
    in.copy_to(matrix(first / kLanes, head), div_up<uint64_t>(n, kLanes) * matrix_.bytes());
}

void Landmarks::copy_from(const Landmarks& other, uint64_t n_chunks) {
  const size_t bytes = div_up<size_t>(n_chunks, kLanes) * matrix_.bytes();
  for (size_t head = 0; head < heads_.size(); ++head) std::memcpy(matrix(0, head), other.matrix(0, head), bytes);
}

}  // namespace mneme
