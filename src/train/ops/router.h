#pragma once

#include <vector>

#include "train/tape/op.h"

namespace mneme::train {

/// Sends each token to K of E experts: p = softmax(x W^T) over all experts, the K most probable ones, the lower index
/// first on ties. W [E, columns]; the product and the softmax are in T.
///
/// Input: x. Outputs: weights [n, K], p_e of the chosen experts, over their sum when `renormalise`; probabilities [n,
/// E]; route [n, 2 K] (route.h). Gradients pass through the weights alone.
///
/// Backward adds that of the load balance (arXiv 2101.03961), which is no part of the loss that CrossEntropy reports:
///
///     balance * share * E sum_e f_e P_e
///
/// with f_e the part of the n K choices that fell on e, P_e the mean of p_e over the batch and `share` what the
/// micro-batch's weights are of the step's, so that a step of several micro-batches adds up to one term.
template <typename T>
class Router : public Op<T> {
 public:
  Router(Parameter<T>* weight, size_t n_used, bool renormalise, double balance);

  std::string_view kind() const override { return "router"; }
  /// Throws Error(kCorruptData) with the weight's name when scores are not finite.
  void forward(const Call<T>& call) override;
  void backward(const Call<T>& call) override;
  uint32_t needs_inputs() const override { return 1; }
  uint32_t needs_outputs() const override { return 7; }
  uint32_t outputs_without_grad() const override { return 6; }
  bool row_wise() const override { return false; }
  size_t backward_scratch_bytes(size_t n_tokens) const override { return n_tokens * n_experts_ * sizeof(T); }
  double forward_flops(const Batch& batch) const override;

  /// balance * share of the last forward().
  double balance_loss() const { return balance_loss_; }
  /// f_e of the last forward(): a router that spreads evenly has 1 / E everywhere.
  const std::vector<double>& shares() const { return shares_; }

 private:
  size_t n_experts_, n_used_;
  bool renormalise_;
  double balance_;
  double balance_loss_ = 0;
  std::vector<double> shares_;
};

extern template class Router<float>;
extern template class Router<double>;

}  // namespace mneme::train
