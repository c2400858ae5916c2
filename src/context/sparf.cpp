#include "context/sparf.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "kernels/vector_ops.h"

namespace mneme {
namespace {

/// Numbers of the n largest of `worth`, ascending; of equal ones the first. `sorted` is overwritten.
void largest(std::span<const float> worth, size_t n, float* sorted, std::vector<uint32_t>& out) {
  out.clear();
  if (n == 0) return;
  std::copy(worth.begin(), worth.end(), sorted);
  std::nth_element(sorted, sorted + (n - 1), sorted + worth.size(), std::greater<>());
  const float bound = sorted[n - 1];
  auto at_bound = static_cast<int64_t>(n);
  for (const float x : worth) at_bound -= x > bound ? 1 : 0;
  for (size_t i = 0; i < worth.size() && out.size() < n; ++i) {
    if (worth[i] < bound || (worth[i] == bound && at_bound-- <= 0)) continue;
    out.push_back(static_cast<uint32_t>(i));
  }
}

float positive(float x) {
  return x > 0 ? x : 0;
}  // also for what is no number

}  // namespace

void sparf_channels(const float* q, size_t n_rows, size_t dim, size_t r, std::vector<uint32_t>& out) {
  std::vector<float> size(dim, 0.0f), sorted(dim);
  for (size_t row = 0; row < n_rows; ++row) {
    for (size_t c = 0; c < dim; ++c) size[c] += positive(std::abs(q[row * dim + c]));
  }
  largest(size, r, sorted.data(), out);
}

float sparf_sharpness(const float* q, size_t dim, std::span<const uint32_t> channels) {
  float all = 0, some = 0;
  for (size_t c = 0; c < dim; ++c) all += std::abs(q[c]);
  for (const uint32_t c : channels) some += std::abs(q[c]);
  return some > 0 ? std::sqrt(all / some) : 1.0f;
}

void sparf_tokens(float* logits, size_t n_rows, size_t n_all, size_t n_old, size_t k, const float* sinks,
                  std::vector<float>& room, std::vector<uint32_t>& chosen, std::vector<SparfShare>& shares) {
  std::vector<float> with_sink(n_rows, 0.0f);  // weight of the sink over that of all tokens
  room.assign(2 * n_old, 0.0f);
  const std::span<float> worth(room.data(), n_old);
  for (size_t row = 0; row < n_rows; ++row) {
    float* const s = logits + row * n_all;
    if (sinks != nullptr) {
      const float most = *std::max_element(s, s + n_all);
      float sum = 0;
      for (size_t i = 0; i < n_all; ++i) sum += std::exp(s[i] - most);
      with_sink[row] = positive(std::exp(sinks[row] - most) / sum);
    }
    kernels::vector_ops().softmax(s, n_all, s);
    const float factor = 1 / (1 + with_sink[row]);
    for (size_t i = 0; i < n_old; ++i) worth[i] += factor * positive(s[i]);
  }
  largest(worth, k, room.data() + n_old, chosen);
  shares.assign(n_rows, {});
  for (size_t row = 0; row < n_rows && k < n_old; ++row) {
    const float* const s = logits + row * n_all;
    double sum = 0;
    for (const uint32_t i : chosen) sum += static_cast<double>(positive(s[i]));
    for (size_t i = n_old; i < n_all; ++i) sum += static_cast<double>(positive(s[i]));
    const double all = 1 + static_cast<double>(with_sink[row]);
    shares[row].rest = static_cast<float>(std::max(0.0, 1 - sum) / all);
    shares[row].covered = 1 - shares[row].rest;
  }
}

}  // namespace mneme
