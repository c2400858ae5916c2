#pragma once

#include <cstddef>

#include "budget/buffer.h"
#include "kernels/matmul.h"

namespace mneme {

/// A matrix in one type, ready for products, for measurements of speed: 16 rows of normal values over and over.
class LargeMatrix {
 public:
  /// `plane_bits`: bits of the activations that a bipolar matrix is multiplied with by bit-planes, 0: the usual
  /// product. Rows are a multiple of 16.
  LargeMatrix(DType dtype, size_t rows, size_t columns, int plane_bits = 0);

  const kernels::Matrix& matrix() const { return matrix_; }
  size_t bytes() const { return bytes_; }
  double bits_per_weight() const { return 8.0 * static_cast<double>(bytes_) / weights(); }
  double weights() const { return static_cast<double>(matrix_.rows * matrix_.columns); }
  /// Seconds of one product with n_tokens, the median of several.
  double seconds(size_t n_tokens);

 private:
  Ledger ledger_;
  Buffer memory_;
  size_t bytes_ = 0;
  kernels::Matrix matrix_;
};

}  // namespace mneme
