#include "kernels/subspace.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "base/philox.h"
#include "kernels/vector_ops.h"
#include "tensor/symmetric_eigen.h"

namespace mneme::kernels {
namespace {

constexpr size_t kOversampling = 8;
constexpr uint64_t kSeed = 0x73756273;  // any fixed number: the draw makes the difference

float dot(const float* a, const float* b, size_t n) {
  return vector_ops().dot(a, b, n);
}
void scale(const float* x, float factor, size_t n, float* y) {
  vector_ops().scale(x, factor, n, y);
}
void add_scaled(const float* x, float factor, size_t n, float* y) {
  vector_ops().add_scaled(x, factor, n, y);
}

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

SubspaceFinder::SubspaceFinder(Ledger& ledger, size_t most_rows, size_t most_columns, size_t rank, std::string what,
                               int power_iterations)
    : longest_(std::max(most_rows, most_columns)), wide_(rank + kOversampling), power_iterations_(power_iterations) {
  const size_t floats = 2 * wide_ * longest_, doubles = 2 * wide_ * wide_ + wide_;
  memory_ = Buffer(ledger, Tag::kScratch, doubles * sizeof(double) + floats * sizeof(float), std::move(what));
}

void SubspaceFinder::left(const LinearMap& a, size_t rank, uint64_t draw, float* basis) {
  find(a, false, rank, draw, basis);
}

void SubspaceFinder::right(const LinearMap& a, size_t rank, uint64_t draw, float* basis) {
  find(a, true, rank, draw, basis);
}

void SubspaceFinder::find(const LinearMap& a, bool right, size_t rank, uint64_t draw, float* basis) {
  const size_t length = right ? a.columns : a.rows, other = right ? a.rows : a.columns;
  const size_t n = std::min({rank + kOversampling, length, other});
  double* gram = memory_.as<double>().data();
  double* vectors = gram + wide_ * wide_;
  double* values = vectors + wide_ * wide_;
  auto* y = reinterpret_cast<float*>(values + wide_);  // vectors of the wanted side
  float* z = y + wide_ * longest_;                     // and of the other
  const auto to_wanted = [&] { a.multiply(z, n, right, y); };
  const auto to_other = [&] { a.multiply(y, n, !right, z); };
  for (size_t i = 0; i < n; ++i) fill_random(z + i * other, other, draw, i);
  to_wanted();
  orthonormalise_rows(y, n, length, draw);
  for (int i = 0; i < power_iterations_; ++i) {
    to_other();
    orthonormalise_rows(z, n, other, draw);
    to_wanted();
    orthonormalise_rows(y, n, length, draw);
  }
  // The range is known; singular vectors inside it are eigenvectors of (Y A)(Y A)^T.
  to_other();
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      gram[i * n + j] = gram[j * n + i] = static_cast<double>(dot(z + i * other, z + j * other, other));
    }
  }
  symmetric_eigen(gram, n, values, vectors);
  for (size_t i = 0; i < rank; ++i) {
    float* const row = basis + i * length;
    std::fill_n(row, length, 0.0f);
    for (size_t j = 0; j < n; ++j) add_scaled(y + j * length, static_cast<float>(vectors[i * n + j]), length, row);
  }
  orthonormalise_rows(basis, rank, length, draw);
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

}  // namespace mneme::kernels
