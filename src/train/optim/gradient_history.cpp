#include "train/optim/gradient_history.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/parallel.h"
#include "train/ops/vector_math.h"

namespace mneme::train {
namespace {

double dot_in_blocks(const float* a, const float* b, size_t n) {
  constexpr size_t kBlock = 4096;
  double sum = 0;
  for (size_t i = 0; i < n; i += kBlock) sum += static_cast<double>(dot(a + i, b + i, std::min(kBlock, n - i)));
  return sum;
}

/// Cholesky factor of a + lambda I in `factor` [n, n]; false when it is not positive definite.
bool decompose(const double* a, size_t n, size_t stride, double lambda, double* factor) {
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double sum = a[i * stride + j] + (i == j ? lambda : 0);
      for (size_t k = 0; k < j; ++k) sum -= factor[i * n + k] * factor[j * n + k];
      if (i != j) {
        factor[i * n + j] = sum / factor[j * n + j];
      } else if (sum > 0) {
        factor[i * n + i] = std::sqrt(sum);
      } else {
        return false;
      }
    }
  }
  return true;
}

}  // namespace

void solve_damped(const double* a, size_t n, size_t stride, double lambda, size_t unit, double* x) {
  std::vector<double> factor(n * n);
  while (!decompose(a, n, stride, lambda, factor.data())) lambda = std::max(lambda * 10, 1e-300);
  for (size_t i = 0; i < n; ++i) {
    x[i] = i == unit ? 1 : 0;
    for (size_t k = 0; k < i; ++k) x[i] -= factor[i * n + k] * x[k];
    x[i] /= factor[i * n + i];
  }
  for (size_t i = n; i-- > 0;) {
    for (size_t k = i + 1; k < n; ++k) x[i] -= factor[k * n + i] * x[k];
    x[i] /= factor[i * n + i];
  }
}

GradientHistory::GradientHistory(Ledger& ledger, std::vector<size_t> sizes, size_t length, float damping, bool relative)
    : sizes_(std::move(sizes)), length_(length), damping_(static_cast<double>(damping)), relative_(relative) {
  size_t total = 0;
  for (const size_t size : sizes_) {
    offsets_.push_back(total);
    total += size * length_;
  }
  columns_ = Buffer(ledger, Tag::kOptimizer, total * sizeof(float), "gradient history of Natural GaLore");
  gram_ = Buffer(ledger, Tag::kOptimizer, sizes_.size() * length_ * length_ * sizeof(double),
                 "Gram matrices of Natural GaLore");
  counters_ = Buffer(ledger, Tag::kOptimizer, sizes_.size() * 2 * sizeof(uint64_t), "counters of Natural GaLore");
}

float* GradientHistory::column(size_t index, size_t i) {
  return columns_.as<float>().data() + offsets_[index] + i * sizes_[index];
}

void GradientHistory::clear(size_t index) {
  counters_.as<uint64_t>()[2 * index] = 0;
  counters_.as<uint64_t>()[2 * index + 1] = 0;
}

void GradientHistory::renew_gram_row(size_t index, size_t row) {
  double* g = gram(index);
  for (size_t j = 0; j < count(index); ++j) {
    g[row * length_ + j] = g[j * length_ + row] = dot_in_blocks(column(index, row), column(index, j), sizes_[index]);
  }
}

void GradientHistory::renew_gram(size_t index) {
  for (size_t row = 0; row < count(index); ++row) renew_gram_row(index, row);
}

void GradientHistory::transform(size_t index, float* g) {
  const size_t size = sizes_[index];
  uint64_t& stored = counters_.as<uint64_t>()[2 * index];
  uint64_t& next = counters_.as<uint64_t>()[2 * index + 1];
  const size_t newest = next;
  std::copy_n(g, size, column(index, newest));
  stored = std::max<uint64_t>(stored, newest + 1);
  next = (newest + 1) % length_;
  renew_gram_row(index, newest);

  const size_t n = stored;
  const double* a = gram(index);
  double lambda = damping_;
  if (relative_) {
    double trace = 0;
    for (size_t i = 0; i < n; ++i) trace += a[i * length_ + i];
    lambda *= trace / static_cast<double>(n);
  }
  if (a[newest * length_ + newest] == 0) return;  // a zero gradient stays zero
  std::vector<double> c(n);
  solve_damped(a, n, length_, lambda, newest, c.data());
  parallel_for(size, 1024, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      double sum = 0;
      for (size_t j = 0; j < n; ++j) sum += c[j] * static_cast<double>(column(index, j)[i]);
      g[i] = static_cast<float>(sum);
    }
  });
  const double along = dot_in_blocks(g, column(index, newest), size), length = dot_in_blocks(g, g, size);
  cosine_sum_ += along / std::sqrt(length * a[newest * length_ + newest]);
  ++n_cosines_;
}

std::vector<StateView> GradientHistory::state() {
  return {{"natural.history", {columns_.data(), columns_.size()}},
          {"natural.gram", {gram_.data(), gram_.size()}},
          {"natural.counters", {counters_.data(), counters_.size()}}};
}

}  // namespace mneme::train
