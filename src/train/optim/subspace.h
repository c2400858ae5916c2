#pragma once

#include "kernels/subspace.h"

/// Singular subspaces (kernels/subspace.h) of a matrix that lies in memory, with the dense products of training.
namespace mneme::train {

using kernels::orthonormalise_rows;

class SubspaceFinder {
 public:
  /// As kernels::SubspaceFinder, with two power iterations.
  SubspaceFinder(Ledger& ledger, size_t most_rows, size_t most_columns, size_t rank)
      : finder_(ledger, most_rows, most_columns, rank, "subspaces of gradients") {}

  /// basis [rank, rows] of g [rows, columns].
  void left(const float* g, size_t rows, size_t columns, size_t rank, uint64_t draw, float* basis);
  /// basis [rank, columns] of g [rows, columns].
  void right(const float* g, size_t rows, size_t columns, size_t rank, uint64_t draw, float* basis);

 private:
  kernels::SubspaceFinder finder_;
};

}  // namespace mneme::train
