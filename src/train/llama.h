#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "budget/ledger.h"
#include "train/adapter.h"
#include "train/experts.h"
#include "train/ops/attention.h"
#include "train/ops/cross_entropy.h"
#include "train/ops/expert_linear.h"
#include "train/ops/linear.h"
#include "train/ops/router.h"
#include "train/ops/row_ops.h"
#include "train/tape/program.h"
#include "weights/adapter_file.h"
#include "weights/model_file.h"

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

/// What a trainable llama is made of beside its sizes.
struct LlamaOptions {
  GemmFormat format = GemmFormat::kFull;
  OperandRounding rounding;        ///< Of the linear layers of the blocks; embedding, scores and head stay as they are.
  WeightRounding weight_rounding;  ///< Likewise.
  bool bf16_weights = false;       ///< Trained matrices are stored in bfloat16 and multiplied in f32 (bf16_weights.h).
  /// All its weights are frozen, its matrices stay as stored; with experts, those that these freeze. Outlives the
  /// model.
  const ModelFile* base = nullptr;
  std::vector<const AdapterFile*> below;  ///< Frozen adapters of the base.
  /// The adapter that is trained; null: everything but a base is. Without a base, the matrices that it adapts stay at
  /// the values they are drawn with, and all else is trained (LoRA from scratch).
  const AdapterOptions* adapter = nullptr;
  /// Parameters get no memory and the program can't run; an adapter then needs no base. For planned_memory().
  bool plan_only = false;
  const ExpertOptions* experts = nullptr;  ///< Mixtures in place of feed-forward networks; null: none.
};

/// A layer's mixture of experts in a program.
template <typename T>
struct ExpertLayer {
  size_t layer = 0;
  size_t first_op = 0, n_ops = 0;  ///< Its ops.
  ValueId input = 0, output = 0;   ///< The normed rows, and what the mixture adds to the residual.
  size_t n_parameters = 0;
  Router<T>* router = nullptr;
};

/// A trainable llama: its parameters, with GGUF tensor names, and the program of one step.
template <typename T>
class LlamaModel {
 public:
  /// Takes memory for parameters from `ledger`; a base's stored matrices count as weights too. Throws Error when base
  /// or adapters don't fit the sizes.
  LlamaModel(Ledger& ledger, const LlamaSizes& sizes, const LlamaOptions& options);
  LlamaModel(Ledger& ledger, const LlamaSizes& sizes, GemmFormat format)
      : LlamaModel(ledger, sizes, LlamaOptions{format, {}, {}, false, nullptr, {}, nullptr, false, nullptr}) {}
  LlamaModel(const LlamaModel&) = delete;
  LlamaModel& operator=(const LlamaModel&) = delete;

  /// Sets learned steps to the best for the weights at hand (learned_steps.h); initialise() and load_weights() do so.
  void start_steps();
  /// The learned steps of a matrix, or null.
  const Parameter<T>* steps_of(const Parameter<T>& weight) const;
  /// Whether products of training see a matrix rounded, and out = what they see of it; adapters are not added.
  bool is_rounded(const Parameter<T>& weight) const;
  void seen_values(const Parameter<T>& weight, T* out) const;

  /// Normal weights of standard deviation 0.02, output projections scaled by 1 / sqrt(2 * layers); adapters as
  /// AdapterOptions::Start::kZero; nothing that a base has. A function of the seed.
  void initialise(uint64_t seed);

  const LlamaSizes& sizes() const { return sizes_; }
  const WeightRounding& weight_rounding() const { return weight_rounding_; }
  ParameterSet<T>& parameters() { return parameters_; }
  Program<T>& program() { return program_; }
  /// All parameters: what executors number.
  std::vector<Parameter<T>*> parameter_list();
  /// Those that are not frozen: what optimisers update.
  std::vector<Parameter<T>*> trained_list();
  /// Adapters of a matrix, frozen ones first.
  std::vector<LowRank<T>> low_rank_of(const Parameter<T>& weight) const;
  CrossEntropy<T>& loss() { return *loss_; }
  /// What the mixtures are; nothing for a dense model.
  const std::optional<ExpertOptions>& experts() const { return experts_; }
  const std::vector<ExpertLayer<T>>& expert_layers() const { return expert_layers_; }
  /// Output of the last norm, the input of the head.
  ValueId final_hidden() const { return final_hidden_; }

 private:
  /// A matrix and the op that multiplies with it.
  struct Place {
    Parameter<T>* weight;
    Linear<T>* op;
    size_t index;
    Parameter<T>* steps = nullptr;
  };
  struct Term {
    const Parameter<T>* weight;
    LowRank<T> low_rank;
  };

  ValueId add_layer(size_t index, ValueId x);
  /// Output of a gated feed-forward network whose tensors are called ffn_gate + suffix, ...
  ValueId add_feed_forward(size_t index, const std::string& suffix, ValueId x);
  /// Output of a mixture of experts.
  ValueId add_experts(size_t index, ValueId x);
  /// Its shared expert, trained in ternary weights.
  ValueId add_ternary_expert(size_t index, ValueId x);
  /// Matrices of all experts, or of the shared one.
  std::vector<Parameter<T>*> expert_weights(size_t index, const char* name, size_t rows, size_t columns);
  void add_linear(ValueId x, std::vector<ValueId> y, std::vector<Parameter<T>*> weights);
  /// Points the parameters at the base; vectors are decoded by load_frozen().
  void freeze(Ledger& ledger, const ModelFile& base);
  void add_term(const Place& place, const std::string& name, size_t rank, T scale, bool frozen);
  void add_adapters(const LlamaOptions& options);
  void add_steps();
  /// Values of frozen parameters that are not packed.
  void load_frozen(const LlamaOptions& options);

  LlamaSizes sizes_;
  GemmFormat format_;
  OperandRounding rounding_;
  WeightRounding weight_rounding_;
  bool has_base_ = false;
  std::optional<ExpertOptions> experts_;
  std::vector<ExpertLayer<T>> expert_layers_;
  ParameterSet<T> parameters_;
  std::vector<Place> places_;
  std::vector<Term> terms_;
  std::vector<Reservation> packed_;
  std::shared_ptr<const RopeTable<T>> rope_;
  Program<T> program_;
  CrossEntropy<T>* loss_ = nullptr;
  ValueId final_hidden_ = 0;
};

/// The tensor of `file` for a parameter, under its dense_name(). Throws Error when it is missing or has another shape.
template <typename T>
const TensorView& tensor_of(const ModelFile& file, const Parameter<T>& parameter);

extern template class LlamaModel<float>;
extern template class LlamaModel<double>;

}  // namespace mneme::train
