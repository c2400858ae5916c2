#include "train/optim/subspace.h"

#include <algorithm>
#include <cmath>

#include "base/philox.h"
#include "tensor/symmetric_eigen.h"
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

}  // namespace mneme::train
