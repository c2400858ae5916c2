#pragma once

#include <utility>
#include <vector>

#include "train/ops/low_rank.h"
#include "train/ops/operand_rounding.h"
#include "train/ops/weight_rounding.h"
#include "train/tape/op.h"

namespace mneme::train {

/// Number format of the operands of a product; sums are always f32 (f64 for double).
enum class GemmFormat : uint8_t { kFull, kBf16 };

/// y_i = x W_i^T for up to three matrices W_i [columns of y_i, columns of x] that share one input (q, k and v; gate and
/// up). Inputs: x. Outputs: y_i. Saves x. Three products per matrix and step: y, dx = sum of dy_i W_i, dW_i += dy_i^T
/// x. A packed matrix is read as it is stored (packed_product.h); adapters may add to any matrix.
template <typename T>
class Linear : public Op<T> {
 public:
  /// `rounding` applies with kBf16 alone, `weight_rounding` to matrices of f32 that are not packed.
  Linear(std::vector<Parameter<T>*> weights, GemmFormat format, const OperandRounding& rounding = {},
         const WeightRounding& weight_rounding = {});
  /// Trains the scales of the groups of W_i too (learned_steps.h); `steps` has one for each 128 values of it. Before
  /// the program is compiled.
  void learn_steps(size_t i, Parameter<T>* steps);
  /// Adds a term to y_i. Before the program is compiled.
  void add_low_rank(size_t i, const LowRank<T>& term);

  std::string_view kind() const override { return "linear"; }
  void forward(const Call<T>& call) override;
  void backward(const Call<T>& call) override;
  uint32_t needs_inputs() const override { return 1; }
  size_t forward_scratch_bytes(size_t n_tokens) const override;
  size_t backward_scratch_bytes(size_t n_tokens) const override;
  double forward_flops(const Batch& batch) const override;

 private:
  struct Scratch;
  Scratch scratch_of(std::byte* memory, size_t n_tokens) const;
  bool converts() const;
  size_t widest_output() const;
  /// W_i as products see it: rounded into `scratch` in quantisation-aware training.
  const T* seen_weight(size_t i, const Scratch& scratch) const;
  /// Gradients of W_i and its steps from that of Q(W_i), which is in scratch.weight.
  void steps_gradient(size_t i, const Scratch& scratch);

  std::vector<Parameter<T>*> weights_;
  std::vector<Parameter<T>*> steps_;  ///< Of each matrix, null where scales are not learned.
  size_t columns_;
  GemmFormat format_;
  OperandRounding rounding_;
  WeightRounding weight_rounding_;
  std::vector<std::pair<size_t, LowRank<T>>> low_rank_;  ///< Index of the matrix and what is added.
};

extern template class Linear<float>;
extern template class Linear<double>;

}  // namespace mneme::train
