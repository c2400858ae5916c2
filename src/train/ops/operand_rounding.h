#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/small_float.h"

namespace mneme::train {

/// The six operands of the three products of a linear layer: y = x W^T, dx = dy W, dW = dy^T x.
enum class ProductOperand : uint8_t { kXForward, kWForward, kDyForDx, kWForDx, kDyForDw, kXForDw };
constexpr size_t kProductOperands = 6;

/// Low-precision training (arXiv 2501.02423, section 3): the chosen operands of every linear layer are rounded to a
/// small floating-point format before the product, with one scale for each run of `block` elements along the dimension
/// that the product sums over. Weights, gradients and sums keep their precision; gradients pass through the rounding as
/// if it weren't there.
struct OperandRounding {
  SmallFloat format{4, 3};
  size_t block = 128;     ///< Longer than the dimension: one scale a channel.
  uint32_t operands = 0;  ///< Bit i: operand i is rounded.

  bool rounds(ProductOperand operand) const { return (operands >> static_cast<uint32_t>(operand)) & 1u; }
};

/// y = x [rows, columns] in bfloat16, rounded before when `rounding` says so. Parallel.
void to_operand(const OperandRounding& rounding, ProductOperand operand, const float* x, size_t rows, size_t columns,
                uint16_t* y);

}  // namespace mneme::train
