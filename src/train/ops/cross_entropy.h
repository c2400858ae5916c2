#pragma once

#include "train/ops/linear.h"

namespace mneme::train {

/// Softmax cross-entropy of x W^T against the batch's targets, over the positions whose weight is not 0, fused with the
/// product: logits exist for one block of listed rows at a time, never for the whole batch. Input: x. No outputs; loss()
/// holds loss_scale * sum of weight * -log p(target). Backward computes the loss on the way, so a training step runs the
/// product once. f32 sums within a row, f64 across rows.
template <typename T>
class CrossEntropy : public Op<T> {
 public:
  CrossEntropy(Parameter<T>* head, GemmFormat format);

  std::string_view kind() const override { return "cross_entropy"; }
  void forward(const Call<T>& call) override;
  void backward(const Call<T>& call) override;
  uint32_t needs_inputs() const override { return 1; }
  bool row_wise() const override { return false; }
  bool forward_in_backward() const override { return true; }
  size_t forward_scratch_bytes(size_t n_tokens) const override;
  size_t backward_scratch_bytes(size_t n_tokens) const override { return forward_scratch_bytes(n_tokens); }
  double forward_flops(const Batch& batch) const override;

  double loss() const { return loss_; }
  /// Most likely id of each listed position of the last forward(), in order of position.
  const std::vector<int32_t>& best_ids() const { return best_ids_; }
  /// -log p(target) of each listed position of the last call, in order of position.
  const std::vector<double>& token_losses() const { return token_losses_; }

 private:
  struct Scratch;
  Scratch scratch_of(const Call<T>& call) const;
  size_t block_rows(size_t n_tokens) const;
  void run(const Call<T>& call, bool backward);
  void logits(const Scratch& scratch, size_t n_rows) const;
  void gradients(const Call<T>& call, const Scratch& scratch, const uint32_t* rows, size_t n_rows,
                 size_t n_padded);

  GemmFormat format_;
  double loss_ = 0;
  std::vector<int32_t> best_ids_;
  std::vector<double> token_losses_;
};

extern template class CrossEntropy<float>;
extern template class CrossEntropy<double>;

}  // namespace mneme::train
