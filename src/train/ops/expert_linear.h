#pragma once

#include <vector>

#include "train/ops/ternary.h"
#include "train/tape/op.h"

namespace mneme::train {

/// Linear layers of which each expert has its own: y_i[r] = x[r] W_{i,e}^T for every row r of expert e, for one or two
/// matrices a expert (gate and up) that share their input. Inputs: x [n, K columns], that is [n K, columns], and the
/// route; without a route there is one expert, and K is 1. Outputs: y_i [n K, rows]. Saves x.
///
/// Ternary experts see x rounded to 8 bits and W as g t, with integers t of -1, 0 and 1 (ternary.h): y = g (x t^T). The
/// gradient passes through both roundings as if they weren't there (arXiv 1308.3432): dx = g dy t, dW = dy^T x, with
/// the rounded x. All products are in T. An expert without rows has a gradient of zeros.
template <typename T>
class ExpertLinear : public Op<T> {
 public:
  struct Options {
    size_t n_used = 1;  ///< K
    bool ternary = false;
    ActivationRounding activations = ActivationRounding::kBlocks;  ///< Of ternary experts.
  };
  /// weights[i][e]; all matrices of one i have the same shape.
  ExpertLinear(std::vector<std::vector<Parameter<T>*>> weights, const Options& options);

  std::string_view kind() const override { return "expert_linear"; }
  void forward(const Call<T>& call) override;
  void backward(const Call<T>& call) override;
  uint32_t needs_inputs() const override { return 3; }
  bool row_wise() const override { return false; }
  size_t forward_scratch_bytes(size_t n_tokens) const override;
  size_t backward_scratch_bytes(size_t n_tokens) const override { return forward_scratch_bytes(n_tokens); }
  double forward_flops(const Batch& batch) const override;

 private:
  struct Seen {
    const T* weight;
    T scale;
  };
  bool rounds_inputs() const { return options_.ternary && options_.activations != ActivationRounding::kNone; }
  size_t input_bytes(size_t n_tokens) const;
  /// x as products see it.
  const T* seen_input(const Call<T>& call) const;
  Seen seen_weight(const Parameter<T>& weight, const Call<T>& call) const;
  /// Calls work(expert, first row, rows) for every expert.
  template <typename Work>
  void for_experts(const Call<T>& call, Work work) const;

  std::vector<std::vector<Parameter<T>*>> weights_;
  Options options_;
  size_t columns_, n_experts_;
};

extern template class ExpertLinear<float>;
extern template class ExpertLinear<double>;

}  // namespace mneme::train
