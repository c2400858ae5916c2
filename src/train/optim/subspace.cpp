#include "train/optim/subspace.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/philox.h"
#include "train/ops/gemm.h"
#include "train/ops/vector_math.h"

namespace mneme::train {
namespace {

constexpr size_t kOversampling = 8;
constexpr int kPowerIterations = 2;
constexpr uint64_t kSeed = 0x73756273;  // any fixed number: the draw makes the difference

void fill_random(float* x, size_t n, uint64_t draw, uint64_t row) {
  PhiloxStream random(kSeed + draw, row);
  for (size_t i = 0; i < n; ++i) x[i] = random.next_normal();
}

/// One pass of modified Gram-Schmidt of row i against the rows before it; returns the norm that is left.
float project_out(float* x, size_t i, size_t columns) {
  float* row = x + i * columns;
  for (size_t j = 0; j < i; ++j) add_scaled(x + j * columns, -dot(row, x + j * columns, columns), columns, row);
  return std::sqrt(dot(row, row, columns));
}

}  // namespace

/// A matrix or its transpose.
struct SubspaceFinder::Input {
  const float* g;
  size_t rows, columns;
  bool transposed;

  size_t length() const { return transposed ? columns : rows; }  ///< Of the vectors that are wanted.
  size_t other() const { return transposed ? rows : columns; }
  /// y [n, other] = x [n, length] A, or y [n, length] = x [n, other] A^T.
  void multiply(const float* x, size_t n, bool to_other, float* y) const {
    const size_t in = to_other ? length() : other(), out = to_other ? other() : length();
    gemm({n, out, in, false, to_other == transposed, in, columns, out}, 1.0f, x, g, 0.0f, y);
  }
};

SubspaceFinder::SubspaceFinder(Ledger& ledger, size_t most_rows, size_t most_columns, size_t rank)
    : longest_(std::max(most_rows, most_columns)), wide_(rank + kOversampling) {
  const size_t floats = 2 * wide_ * longest_ + wide_ * wide_, doubles = 2 * wide_ * wide_ + wide_;
  memory_ = Buffer(ledger, Tag::kScratch, doubles * sizeof(double) + floats * sizeof(float), "subspaces of gradients");
}

void SubspaceFinder::left(const float* g, size_t rows, size_t columns, size_t rank, uint64_t draw, float* basis) {
  find({g, rows, columns, false}, rank, draw, basis);
}

void SubspaceFinder::right(const float* g, size_t rows, size_t columns, size_t rank, uint64_t draw, float* basis) {
  find({g, rows, columns, true}, rank, draw, basis);
}

void SubspaceFinder::find(const Input& input, size_t rank, uint64_t draw, float* basis) {
  const size_t n = std::min({rank + kOversampling, input.length(), input.other()});
  double* gram = memory_.as<double>().data();
  double* vectors = gram + wide_ * wide_;
  double* values = vectors + wide_ * wide_;
  auto* y = reinterpret_cast<float*>(values + wide_);
  float* z = y + wide_ * longest_;
  float* rotation = z + wide_ * longest_;
  for (size_t i = 0; i < n; ++i) fill_random(z + i * input.other(), input.other(), draw, i);
  input.multiply(z, n, false, y);
  orthonormalise_rows(y, n, input.length(), draw);
  for (int i = 0; i < kPowerIterations; ++i) {
    input.multiply(y, n, true, z);
    orthonormalise_rows(z, n, input.other(), draw);
    input.multiply(z, n, false, y);
    orthonormalise_rows(y, n, input.length(), draw);
  }
  // The range is known; singular vectors inside it are eigenvectors of (Y A)(Y A)^T.
  input.multiply(y, n, true, z);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      gram[i * n + j] = gram[j * n + i] =
          static_cast<double>(dot(z + i * input.other(), z + j * input.other(), input.other()));
    }
  }
  symmetric_eigen(gram, n, values, vectors);
  for (size_t i = 0; i < rank * n; ++i) rotation[i] = static_cast<float>(vectors[i]);
  gemm({rank, input.length(), n, false, false, n, input.length(), input.length()}, 1.0f, rotation, y, 0.0f, basis);
  orthonormalise_rows(basis, rank, input.length(), draw);
}

void orthonormalise_rows(float* x, size_t n, size_t columns, uint64_t draw) {
  for (size_t i = 0; i < n; ++i) {
    float* row = x + i * columns;
    // A second pass removes what rounding left of the first; a row that loses nearly everything was dependent.
    float before = std::sqrt(dot(row, row, columns));
    for (uint64_t attempt = 0;; ++attempt) {
      if (before > 0) scale(row, 1.0f / before, columns, row);
      const float left = before > 0 ? project_out(x, i, columns) : 0.0f;
      if (left > 1e-4f) {
        scale(row, 1.0f / left, columns, row);
        const float again = project_out(x, i, columns);
        scale(row, 1.0f / again, columns, row);
        break;
      }
      fill_random(row, columns, draw, (attempt + 1) << 32 | i);
      before = std::sqrt(dot(row, row, columns));
    }
  }
}

void symmetric_eigen(double* a, size_t n, double* values, double* vectors) {
  std::fill_n(vectors, n * n, 0.0);
  for (size_t i = 0; i < n; ++i) vectors[i * n + i] = 1;
  constexpr int kMostSweeps = 30;
  for (int sweep = 0; sweep < kMostSweeps; ++sweep) {
    double off = 0, diagonal = 0;
    for (size_t i = 0; i < n; ++i) {
      diagonal += a[i * n + i] * a[i * n + i];
      for (size_t j = 0; j < i; ++j) off += a[i * n + j] * a[i * n + j];
    }
    if (off <= 1e-22 * diagonal) break;
    for (size_t p = 0; p < n; ++p) {
      for (size_t q = p + 1; q < n; ++q) {
        const double apq = a[p * n + q];
        if (apq == 0) continue;
        const double theta = (a[q * n + q] - a[p * n + p]) / (2 * apq);
        const double t = (theta >= 0 ? 1 : -1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        const auto rotate = [&](double& x, double& y) {
          const double old = x;
          x = c * old - s * y;
          y = s * old + c * y;
        };
        for (size_t k = 0; k < n; ++k) rotate(a[k * n + p], a[k * n + q]);
        for (size_t k = 0; k < n; ++k) rotate(a[p * n + k], a[q * n + k]);
        for (size_t k = 0; k < n; ++k) rotate(vectors[p * n + k], vectors[q * n + k]);
      }
    }
  }
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) { return a[i * n + i] > a[j * n + j]; });
  for (size_t i = 0; i < n; ++i) values[i] = a[order[i] * n + order[i]];
  // `a` is free now: it holds the sorted vectors on their way back.
  for (size_t i = 0; i < n; ++i) std::copy_n(vectors + order[i] * n, n, a + i * n);
  std::copy_n(a, n * n, vectors);
}

}  // namespace mneme::train
