#pragma once

#include "train/ops/operand_rounding.h"
#include "train/tape/op.h"

namespace mneme::train {

/// Number format of the operands of a product; sums are always f32 (f64 for double).
enum class GemmFormat : uint8_t { kFull, kBf16 };

/// y_i = x W_i^T for up to three matrices W_i [columns of y_i, columns of x] that share one input (q, k and v; gate and
/// up). Inputs: x. Outputs: y_i. Saves x. Three products per matrix and step: y, dx = sum of dy_i W_i, dW_i += dy_i^T x.
template <typename T>
class Linear : public Op<T> {
 public:
  /// `rounding` applies with kBf16 alone.
  Linear(std::vector<Parameter<T>*> weights, GemmFormat format, const OperandRounding& rounding = {});

  std::string_view kind() const override { return "linear"; }
  void forward(const Call<T>& call) override;
  void backward(const Call<T>& call) override;
  uint32_t needs_inputs() const override { return 1; }
  size_t forward_scratch_bytes(size_t n_tokens) const override;
  size_t backward_scratch_bytes(size_t n_tokens) const override;
  double forward_flops(const Batch& batch) const override;

 private:
  size_t widest_output() const;

  size_t columns_;
  GemmFormat format_;
  OperandRounding rounding_;
};

extern template class Linear<float>;
extern template class Linear<double>;

}  // namespace mneme::train
