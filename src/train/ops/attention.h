#pragma once

#include "train/tape/op.h"

namespace mneme::train {

/// Causal softmax attention over packed sequences, tile by tile (FlashAttention, arXiv 2205.14135): no score matrix is
/// stored, backward computes the tiles again from the saved log-sums. Grouped-query: head h reads kv head h / (H / H_kv).
///
/// Inputs: q [n, H * D], k and v [n, H_kv * D], rotated already. Outputs: o [n, H * D] and lse [n, H], the log of the sum
/// of exponentials of the scaled scores. Saves all five. Results don't depend on the number of threads.
template <typename T>
class Attention : public Op<T> {
 public:
  Attention(size_t n_heads, size_t n_kv_heads, size_t head_dim);

  std::string_view kind() const override { return "attention"; }
  void forward(const Call<T>& call) override;
  void backward(const Call<T>& call) override;
  uint32_t needs_inputs() const override { return 7; }
  uint32_t needs_outputs() const override { return 3; }
  uint32_t outputs_without_grad() const override { return 2; }
  bool row_wise() const override { return false; }
  size_t forward_scratch_bytes(size_t n_tokens) const override;
  size_t backward_scratch_bytes(size_t n_tokens) const override;
  double forward_flops(const Batch& batch) const override;

 private:
  void forward_block(const Call<T>& call, size_t start, size_t begin, size_t end, size_t head, T* tile) const;
  void backward_head(const Call<T>& call, size_t start, size_t end, size_t kv_head, T* tile) const;

  size_t n_heads_, n_kv_heads_, head_dim_;
  T factor_;
};

extern template class Attention<float>;
extern template class Attention<double>;

}  // namespace mneme::train
