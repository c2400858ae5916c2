#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/function_ref.h"
#include "budget/buffer.h"

/// Dominant singular subspaces of a matrix, by a randomised range finder (Halko, Martinsson, Tropp, arXiv 0909.4061,
/// algorithms 4.4 and 5.1) with power iterations; no LAPACK.
namespace mneme::kernels {

/// A matrix A [rows, columns] that is only ever multiplied with.
struct LinearMap {
  size_t rows, columns;
  /// y [n, rows] = x [n, columns] A^T, or transposed: y [n, columns] = x [n, rows] A.
  FunctionRef<void(const float* x, size_t n, bool transposed, float* y)> multiply;
};

/// Finds orthonormal bases. Costs about 4 (p + 1) m n (r + 8) operations for an m x n matrix, rank r and p power
/// iterations.
class SubspaceFinder {
 public:
  /// Working memory for matrices of up to `most_rows` x `most_columns` and this rank, under Tag::kScratch; `what` names
  /// it.
  SubspaceFinder(Ledger& ledger, size_t most_rows, size_t most_columns, size_t rank, std::string what,
                 int power_iterations = 2);

  /// basis [rank, rows]: row i is about the i-th left singular vector of A. Always orthonormal: directions that A does
  /// not have are filled with random ones. `draw` selects the random start. rank <= min(rows, columns).
  void left(const LinearMap& a, size_t rank, uint64_t draw, float* basis);
  /// The same for right singular vectors: basis [rank, columns].
  void right(const LinearMap& a, size_t rank, uint64_t draw, float* basis);

 private:
  void find(const LinearMap& a, bool right, size_t rank, uint64_t draw, float* basis);

  Buffer memory_;
  size_t longest_, wide_;
  int power_iterations_;
};

/// Makes the rows of x [n, columns] orthonormal in their order; a row that depends on earlier ones is replaced by a
/// random direction. n <= columns.
void orthonormalise_rows(float* x, size_t n, size_t columns, uint64_t draw);

}  // namespace mneme::kernels
