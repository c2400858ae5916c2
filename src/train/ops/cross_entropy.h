#pragma once

#include "train/ops/linear.h"

namespace mneme::train {

/// A teacher's view of the batch at hand: what its head is multiplied with, and how much it counts beside the targets.
template <typename T>
struct Teacher {
  const T* hidden = nullptr;            ///< [n_tokens, columns of head]; set before each training step.
  const Parameter<T>* head = nullptr;   ///< Packed, as many rows as the trained head.
  double kl_weight = 1, ce_weight = 0;  ///< loss = kl_weight KL(teacher || model) + ce_weight cross-entropy, per token.
};

/// Softmax cross-entropy of x W^T against the batch's targets, over the positions whose weight is not 0, fused with the
/// product: logits exist for one block of listed rows at a time, never for the whole batch. Input: x. No outputs;
/// loss() holds loss_scale * sum of weight * -log p(target). Backward computes the loss on the way, so a training step
/// runs the product once. f32 sums within a row, f64 across rows.
///
/// With a teacher (knowledge distillation, arXiv 1503.02531, temperature 1) training steps take the loss of Teacher;
/// the gradient of the KL term by the logits is softmax(model) - softmax(teacher). forward() has cross-entropy alone.
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

  /// Before the program is compiled; `teacher` must outlive this.
  void learn_from(const Teacher<T>* teacher) { teacher_ = teacher; }

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
  /// Probabilities of the teacher [n_rows, vocabulary] in scratch.taught, and KL(teacher || model) of each row, whose
  /// logits are in scratch.logits.
  void teach(const Scratch& scratch, const uint32_t* rows, size_t n_rows, std::vector<double>& divergence) const;
  void gradients(const Call<T>& call, const Scratch& scratch, const uint32_t* rows, size_t n_rows, size_t n_padded);

  /// bf16 products; a packed head is multiplied in T.
  bool converts() const { return format_ == GemmFormat::kBf16 && !this->parameters[0]->is_packed(); }

  GemmFormat format_;
  const Teacher<T>* teacher_ = nullptr;
  double loss_ = 0;
  std::vector<int32_t> best_ids_;
  std::vector<double> token_losses_;
};

extern template class CrossEntropy<float>;
extern template class CrossEntropy<double>;

}  // namespace mneme::train
