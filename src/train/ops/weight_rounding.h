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
///            with learned steps (BIPOLARn alone) a trained scale for each group: learned_steps.h
///   ternary  Q(W) = g clip(round(W / g), -1, 1), g = mean |W| of the matrix in half precision (BitNet b1.58,
///            arXiv 2402.17764), which TQ2_0 and TQ1_0 store exactly
///   ExMy     Q(W) = W rounded to a small float with one f32 scale for each `block` elements of a row, kept as F32
///
/// A matrix whose rows don't fit the stored type gets the one that quantisation puts in its place (fit_shape() in
/// weights/quantize.h). The rounding of activations is not simulated.
struct WeightRounding {
  enum class Kind { kNone, kStored, kTernary, kFloat };
  Kind kind = Kind::kNone;
  DType dtype = DType::kF32;   ///< What the export writes.
  SmallFloat format{4, 3};     ///< kFloat
  size_t block = 128;          ///< kFloat
  bool learned_steps = false;  ///< kStored, of a bipolar type

  explicit operator bool() const { return kind != Kind::kNone; }
  /// "ternary", a type ("Q4_0") or a small float ("E2M1"). Throws Error(kInvalidArgument).
  static WeightRounding parse(std::string_view name);
  /// As parse() reads it, empty for none.
  std::string name() const;
  /// What the export writes a matrix with rows of `columns` values in. Throws Error(kInvalidArgument) where ternary
  /// blocks don't fit.
  DType type_for(size_t columns) const;
  /// Whether a matrix with such rows has a trained scale for each group.
  bool learns_steps(size_t columns) const { return learned_steps && type_for(columns) == dtype; }
  /// out = Q(w) for w [rows, columns]; apart from w. Not for matrices with learned steps. Parallel.
  void apply(const float* w, size_t rows, size_t columns, float* out) const;
};

}  // namespace mneme::train
