#pragma once

#include <cstddef>
#include <cstdint>

#include "budget/buffer.h"

/// Dominant singular subspaces of a matrix, by a randomised range finder (Halko, Martinsson, Tropp, arXiv 0909.4061,
/// algorithms 4.4 and 5.1) with two power iterations; no LAPACK.
namespace mneme::train {

/// Finds orthonormal bases. Costs about 12 m n (r + 8) operations for an m x n matrix and rank r.
class SubspaceFinder {
 public:
  /// Working memory for matrices of up to `most_rows` x `most_columns` and this rank, under Tag::kScratch.
  SubspaceFinder(Ledger& ledger, size_t most_rows, size_t most_columns, size_t rank);

  /// basis [rank, rows]: row i is about the i-th left singular vector of g [rows, columns]. Always orthonormal:
  /// directions that g does not have are filled with random ones. `draw` selects the random start. rank <= min(rows,
  /// columns).
  void left(const float* g, size_t rows, size_t columns, size_t rank, uint64_t draw, float* basis);
  /// The same for right singular vectors: basis [rank, columns].
  void right(const float* g, size_t rows, size_t columns, size_t rank, uint64_t draw, float* basis);

 private:
  struct Input;
  void find(const Input& input, size_t rank, uint64_t draw, float* basis);

  Buffer memory_;
  size_t longest_, wide_;
};

/// Makes the rows of x [n, columns] orthonormal in their order; a row that depends on earlier ones is replaced by a
/// random direction. n <= columns.
void orthonormalise_rows(float* x, size_t n, size_t columns, uint64_t draw);

}  // namespace mneme::train
