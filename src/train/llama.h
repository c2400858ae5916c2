#pragma once

#include <memory>
#include <vector>

#include "train/ops/attention.h"
#include "train/ops/cross_entropy.h"
#include "train/ops/linear.h"
#include "train/ops/row_ops.h"
#include "train/tape/program.h"

namespace mneme::train {

/// Sizes of a trained transformer of the llama kind: RMS norm, rotary positions, grouped-query attention, SwiGLU.
struct LlamaSizes {
  size_t vocabulary = 0, width = 0, n_layers = 0, n_heads = 0, n_kv_heads = 0, ffn_width = 0, context = 0;
  double rope_base = 10000, norm_eps = 1e-5;
  bool tied_head = true;

  size_t head_dim() const { return width / n_heads; }
  /// Throws Error(kInvalidArgument) that names the first contradiction.
  void check() const;
};

/// A trainable llama: its parameters, with GGUF tensor names, and the program of one step.
template <typename T>
class LlamaModel {
 public:
  /// Takes memory for parameters and gradients from `ledger`.
  /// `rounding` is of the linear layers of the blocks; embedding, attention scores and head keep their precision.
  LlamaModel(Ledger& ledger, const LlamaSizes& sizes, GemmFormat format, const OperandRounding& rounding = {});
  LlamaModel(const LlamaModel&) = delete;
  LlamaModel& operator=(const LlamaModel&) = delete;

  /// Normal weights of standard deviation 0.02, output projections scaled by 1 / sqrt(2 * layers); a function of the seed.
  void initialise(uint64_t seed);

  const LlamaSizes& sizes() const { return sizes_; }
  ParameterSet<T>& parameters() { return parameters_; }
  Program<T>& program() { return program_; }
  std::vector<Parameter<T>*> parameter_list();
  CrossEntropy<T>& loss() { return *loss_; }
  /// Output of the last norm, the input of the head.
  ValueId final_hidden() const { return final_hidden_; }

 private:
  ValueId add_layer(size_t index, ValueId x);

  LlamaSizes sizes_;
  GemmFormat format_;
  OperandRounding rounding_;
  ParameterSet<T> parameters_;
  std::shared_ptr<const RopeTable<T>> rope_;
  Program<T> program_;
  CrossEntropy<T>* loss_ = nullptr;
  ValueId final_hidden_ = 0;
};

extern template class LlamaModel<float>;
extern template class LlamaModel<double>;

}  // namespace mneme::train
