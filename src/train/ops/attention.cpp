#include "train/ops/attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/parallel.h"
#include "train/ops/gemm.h"
#include "train/ops/vector_math.h"

namespace mneme::train {
namespace {

constexpr size_t kQueryTile = 128;
constexpr size_t kKeyTile = 512;

/// Runs work(item, worker) for all items; idle workers take the next one.
template <class Work>
void for_items(size_t n_items, Work work) {
  std::atomic<size_t> next{0};
  parallel_workers([&](int worker, int) {
    for (size_t item = next.fetch_add(1); item < n_items; item = next.fetch_add(1)) {
      work(item, static_cast<size_t>(worker));
    }
  });
}

/// Number of keys in [first_key, end_key) that query `q` may see.
size_t visible_keys(size_t q, size_t first_key, size_t end_key) {
  return std::min(end_key, q + 1) > first_key ? std::min(end_key, q + 1) - first_key : 0;
}

size_t workers() { return static_cast<size_t>(n_threads()); }

}  // namespace

template <typename T>
Attention<T>::Attention(size_t n_heads, size_t n_kv_heads, size_t head_dim)
    : n_heads_(n_heads),
      n_kv_heads_(n_kv_heads),
      head_dim_(head_dim),
      factor_(T{1} / std::sqrt(static_cast<T>(head_dim))) {
  if (n_kv_heads == 0 || n_heads % n_kv_heads != 0) {
    fail(ErrorCode::kInvalidArgument, "[attention] expected heads to be a multiple of kv heads, found {} and {}", n_heads,
         n_kv_heads);
  }
}

template <typename T>
size_t Attention<T>::forward_scratch_bytes(size_t /*n_tokens*/) const {
  return workers() * (kQueryTile * kKeyTile + 2 * kQueryTile) * sizeof(T);
}

template <typename T>
size_t Attention<T>::backward_scratch_bytes(size_t /*n_tokens*/) const {
  return workers() * (2 * kQueryTile * kKeyTile + kQueryTile) * sizeof(T);
}

template <typename T>
double Attention<T>::forward_flops(const Batch& batch) const {
  double pairs = 0;
  for (size_t s = 0; s < batch.n_sequences(); ++s) {
    const double length = batch.sequence_starts[s + 1] - batch.sequence_starts[s];
    pairs += length * (length + 1) / 2;
  }
  return 4.0 * pairs * static_cast<double>(n_heads_ * head_dim_);
}

template <typename T>
void Attention<T>::forward(const Call<T>& call) {
  struct Item {
    size_t start, begin, end, head;
  };
  std::vector<Item> items;
  const auto starts = call.batch->sequence_starts;
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    for (size_t begin = starts[s]; begin < starts[s + 1]; begin += kQueryTile) {
      const size_t end = std::min<size_t>(begin + kQueryTile, starts[s + 1]);
      for (size_t head = 0; head < n_heads_; ++head) items.push_back({starts[s], begin, end, head});
    }
  }
  const size_t stride = forward_scratch_bytes(0) / workers() / sizeof(T);
  for_items(items.size(), [&](size_t i, size_t worker) {
    forward_block(call, items[i].start, items[i].begin, items[i].end, items[i].head,
                  reinterpret_cast<T*>(call.scratch) + worker * stride);
  });
}

template <typename T>
void Attention<T>::forward_block(const Call<T>& call, size_t start, size_t begin, size_t end, size_t head, T* tile) const {
  const size_t q_stride = n_heads_ * head_dim_, kv_stride = n_kv_heads_ * head_dim_;
  const size_t kv_head = head / (n_heads_ / n_kv_heads_), n_queries = end - begin;
  T* top = tile + kQueryTile * kKeyTile;
  T* sum = top + kQueryTile;
  std::fill_n(top, n_queries, -std::numeric_limits<T>::infinity());
  std::fill_n(sum, n_queries, T{0});
  T* o = call.out[0] + begin * q_stride + head * head_dim_;
  const T* q = call.in[0] + begin * q_stride + head * head_dim_;
  for (size_t first = start; first < end; first += kKeyTile) {
    const size_t last = std::min(first + kKeyTile, end), n_keys = last - first;
    const T* k = call.in[1] + first * kv_stride + kv_head * head_dim_;
    const T* v = call.in[2] + first * kv_stride + kv_head * head_dim_;
    gemm({n_queries, n_keys, head_dim_, false, true, q_stride, kv_stride, n_keys}, T{1}, q, k, T{0}, tile);
    for (size_t i = 0; i < n_queries; ++i) {
      T* row = tile + i * n_keys;
      const size_t visible = visible_keys(begin + i, first, last);
      if (visible > 0) {
        const T new_top = std::max(top[i], max_of(row, visible) * factor_);
        const T keep = std::exp(top[i] - new_top);
        sum[i] = sum[i] * keep + exp_shifted(row, factor_, new_top, visible);
        if (first > start && keep != T{1}) scale(o + i * q_stride, keep, head_dim_, o + i * q_stride);
        top[i] = new_top;
      }
      std::fill(row + visible, row + n_keys, T{0});
    }
    gemm({n_queries, head_dim_, n_keys, false, false, n_keys, kv_stride, q_stride}, T{1}, tile, v,
         first > start ? T{1} : T{0}, o);
  }
  for (size_t i = 0; i < n_queries; ++i) {
    scale(o + i * q_stride, T{1} / sum[i], head_dim_, o + i * q_stride);
    call.out[1][(begin + i) * n_heads_ + head] = top[i] + std::log(sum[i]);
  }
}

template <typename T>
void Attention<T>::backward(const Call<T>& call) {
  if (call.accumulate[0] || call.accumulate[1] || call.accumulate[2]) {
    fail(ErrorCode::kUnsupported, "[attention] expected q, k and v to be used once, found a second use");
  }
  const auto starts = call.batch->sequence_starts;
  const size_t stride = backward_scratch_bytes(0) / workers() / sizeof(T);
  for_items((starts.size() - 1) * n_kv_heads_, [&](size_t i, size_t worker) {
    const size_t s = i / n_kv_heads_;
    backward_head(call, starts[s], starts[s + 1], i % n_kv_heads_, reinterpret_cast<T*>(call.scratch) + worker * stride);
  });
}

// For a tile: P = exp(factor q k^T - lse), dV += P^T dO, dP = dO V^T, dS = P (dP - sum(dO o)) factor, dQ += dS K, dK += dS^T Q.
template <typename T>
void Attention<T>::backward_head(const Call<T>& call, size_t start, size_t end, size_t kv_head, T* tile) const {
  const size_t q_stride = n_heads_ * head_dim_, kv_stride = n_kv_heads_ * head_dim_, group = n_heads_ / n_kv_heads_;
  T* d_tile = tile + kQueryTile * kKeyTile;
  T* delta = d_tile + kQueryTile * kKeyTile;
  for (size_t t = start; t < end; ++t) {
    std::fill_n(call.grad_in[1] + t * kv_stride + kv_head * head_dim_, head_dim_, T{0});
    std::fill_n(call.grad_in[2] + t * kv_stride + kv_head * head_dim_, head_dim_, T{0});
  }
  for (size_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (size_t begin = start; begin < end; begin += kQueryTile) {
      const size_t stop = std::min(begin + kQueryTile, end), n_queries = stop - begin;
      const size_t q_offset = begin * q_stride + head * head_dim_;
      const T* q = call.in[0] + q_offset;
      const T* d_o = call.grad_out[0] + q_offset;
      T* dq = call.grad_in[0] + q_offset;
      for (size_t i = 0; i < n_queries; ++i) delta[i] = dot(d_o + i * q_stride, call.out[0] + q_offset + i * q_stride, head_dim_);
      for (size_t first = start; first < stop; first += kKeyTile) {
        const size_t last = std::min(first + kKeyTile, stop), n_keys = last - first;
        const size_t kv_offset = first * kv_stride + kv_head * head_dim_;
        const T* k = call.in[1] + kv_offset;
        const T* v = call.in[2] + kv_offset;
        const GemmShape scores{n_queries, n_keys, head_dim_, false, true, q_stride, kv_stride, n_keys};
        const GemmShape to_keys{n_keys, head_dim_, n_queries, true, false, n_keys, q_stride, kv_stride};
        const GemmShape to_queries{n_queries, head_dim_, n_keys, false, false, n_keys, kv_stride, q_stride};
        gemm(scores, T{1}, q, k, T{0}, tile);
        gemm(scores, T{1}, d_o, v, T{0}, d_tile);
        for (size_t i = 0; i < n_queries; ++i) {
          T* p = tile + i * n_keys;
          T* ds = d_tile + i * n_keys;
          const size_t visible = visible_keys(begin + i, first, last);
          exp_shifted(p, factor_, call.out[1][(begin + i) * n_heads_ + head], visible);
          softmax_backward(p, delta[i], factor_, visible, ds);
          std::fill(p + visible, p + n_keys, T{0});
          std::fill(ds + visible, ds + n_keys, T{0});
        }
        gemm(to_keys, T{1}, tile, d_o, T{1}, call.grad_in[2] + kv_offset);
        gemm(to_keys, T{1}, d_tile, q, T{1}, call.grad_in[1] + kv_offset);
        gemm(to_queries, T{1}, d_tile, k, first > start ? T{1} : T{0}, dq);
      }
    }
  }
}

template class Attention<float>;
template class Attention<double>;

}  // namespace mneme::train
