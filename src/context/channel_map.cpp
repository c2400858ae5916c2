#include "context/channel_map.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

namespace mneme {
namespace {

size_t floats_of(const KvShape& shape) { return RecentQueries::kTokens * shape.n_kv_heads * shape.key_dim; }

/// Channels in descending order of `size`; equal ones by their number.
std::vector<uint8_t> descending(std::span<const float> size) {
  std::vector<uint8_t> order(size.size());
  std::iota(order.begin(), order.end(), uint8_t{0});
  // A NaN would break the order that sorting needs.
  const auto key = [&](uint8_t c) { return size[c] == size[c] ? size[c] : 0.0f; };
  std::stable_sort(order.begin(), order.end(), [&](uint8_t a, uint8_t b) { return key(a) > key(b); });
  return order;
}

}  // namespace

void keep_channels(std::span<const float> worth, size_t n_kept, uint8_t* out) {
  std::vector<uint8_t> order = descending(worth);
  order.resize(n_kept);
  std::sort(order.begin(), order.end());
  std::copy(order.begin(), order.end(), out);
}

void sort_channels(std::span<const float> energy, uint8_t* out) {
  const std::vector<uint8_t> order = descending(energy);
  std::copy(order.begin(), order.end(), out);
}

uint64_t RecentQueries::reserved_bytes(const KvShape& shape) {
  return Buffer::reserved_bytes(floats_of(shape) * sizeof(float));
}

RecentQueries::RecentQueries(const KvShape& shape, Ledger& ledger)
    : shape_(shape), squares_(ledger, Tag::kKv, floats_of(shape) * sizeof(float), "sizes of recent queries") {}

void RecentQueries::add(const KvQueries& queries, size_t first, size_t n) {
  const size_t group = queries.n_heads / shape_.n_kv_heads, dim = shape_.key_dim;
  const auto squares = squares_.as<float>();
  for (size_t t = n > kTokens ? n - kTokens : 0; t < n; ++t) {
    const float* const q = queries.q + (first + t) * queries.q_stride;
    for (size_t head = 0; head < shape_.n_kv_heads; ++head) {
      float* const out = squares.data() + (((n_ + t) % kTokens) * shape_.n_kv_heads + head) * dim;
      std::fill_n(out, dim, 0.0f);
      for (size_t g = 0; g < group; ++g) {
        const float* const row = q + (head * group + g) * dim;
        for (size_t c = 0; c < dim; ++c) out[c] += row[c] * row[c];
      }
    }
  }
  n_ += n;
}

void RecentQueries::energy(size_t head, std::span<float> energy) const {
  std::fill(energy.begin(), energy.end(), 0.0f);
  const auto squares = squares_.as<float>();
  const size_t dim = shape_.key_dim;
  for (size_t t = 0; t < std::min<uint64_t>(n_, kTokens); ++t) {
    const float* const row = squares.data() + (t * shape_.n_kv_heads + head) * dim;
    for (size_t c = 0; c < dim; ++c) energy[c] += row[c];
  }
}

void RecentQueries::save(StateWriter& out) const {
  out.put(n_);
  out.write({squares_.data(), squares_.size()});
}

void RecentQueries::load(StateReader& in) {
  n_ = in.get<uint64_t>();
  in.copy_to(squares_.data(), squares_.size());
}

void RecentQueries::copy_from(const RecentQueries& other) {
  std::memcpy(squares_.data(), other.squares_.data(), squares_.size());
  n_ = other.n_;
}

}  // namespace mneme
