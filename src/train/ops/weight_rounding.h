#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "tensor/dtype.h"
#include "tensor/small_float.h"

namespace mneme::train {

/// Quantisation-aware training: the products of a linear layer see its matrix W as it will be stored, Q(W); the
/// gradient of Q(W) is given to the f32 master W as it is (straight-through estimator, arXiv 1308.3432).
///
///   stored   Q(W) = decode(encode(W)) of any type that can be written: Q8_0 (8 bits) ... Q4_0, Q3_K, Q2_K, MXFP4
///   ternary  Q(W) = g clip(round(W / g), -1, 1), g = mean |W| of the matrix in half precision (BitNet b1.58,
///            arXiv 2402.17764), which TQ2_0 and TQ1_0 store exactly
///   ExMy     Q(W) = W rounded to a small float with one f32 scale for each `block` elements of a row, kept as F32
///
/// The rounding of activations is not simulated.
struct WeightRounding {
  enum class Kind { kNone, kStored, kTernary, kFloat };
  Kind kind = Kind::kNone;
  DType dtype = DType::kF32;  ///< What the export writes.
  SmallFloat format{4, 3};    ///< kFloat
  size_t block = 128;         ///< kFloat

  explicit operator bool() const { return kind != Kind::kNone; }
  /// "ternary", a type ("Q4_0") or a small float ("E2M1"). Throws Error(kInvalidArgument).
  static WeightRounding parse(std::string_view name);
  /// As parse() reads it, empty for none.
  std::string name() const;
  /// Elements that a row must be a multiple of.
  size_t row_multiple() const;
  /// out = Q(w) for w [rows, columns]; apart from w. Parallel.
  void apply(const float* w, size_t rows, size_t columns, float* out) const;
};

}  // namespace mneme::train
