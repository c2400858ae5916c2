#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "base/json.h"
#include "train/checkpoint.h"
#include "train/distillation.h"
#include "train/optim/bf16_weights.h"
#include "train/recall_eval.h"
#include "train/recipe.h"
#include "train/run_log.h"
#include "train/run_model.h"
#include "train/tape/executor.h"

namespace mneme::train {

/// What a step did, for whoever watches.
struct StepReport {
  uint64_t step, total_steps, tokens;
  double loss, loss_average, gradient_norm, tokens_per_second, seconds_left;
  float rate;
};

/// One training run in a directory: recipe.toml (a copy), tokenizer.model, stories.txt, log.jsonl, checkpoint-*.bin,
/// metrics.json at the end. A run that was killed continues from its newest valid checkpoint with the same data and the
/// same arithmetic, so it ends with the same bits for the same number of threads.
class Trainer {
 public:
  struct Callbacks {
    std::function<void(const StepReport&)> step;      ///< After each step.
    std::function<void(const std::string&)> message;  ///< Long preparations.
    std::function<bool()> stop;                       ///< True: write a checkpoint and return.
  };

  /// Prepares data, model and memory; reads the newest checkpoint when `resume`. Throws Error: kOutOfBudget when the
  /// run does not fit the ledger's limit, kInvalidArgument when the directory already has a run and `resume` is false.
  Trainer(Ledger& ledger, Recipe recipe, const std::string& recipe_text, std::string directory, bool resume,
          Callbacks callbacks);
  ~Trainer();

  /// Trains to the last step or until stopped; returns true when the run is complete. Throws Error(kCorruptData) when a
  /// loss is not a number, naming step and tensor; the last checkpoint is then still good.
  bool run();

  const Progression& progression() const { return progression_; }
  LlamaModel<float>& model() { return *run_.model; }
  const TrainTokenizer& tokenizer() const { return *tokenizer_; }
  /// Where the memory goes, for a person: one line a class.
  std::string memory_plan() const;
  /// The same in bytes, by class.
  Json planned_bytes() const;
  /// Mean loss on about n_tokens of held-out texts, in nats a token. The recipe must have texts.
  double held_out_loss(size_t n_tokens);

 private:
  void prepare_data();
  void prepare_tokenizer(const ModelFile* base);
  /// Builds the model and sets its weights as the recipe starts them.
  void prepare_model(std::unique_ptr<ModelFile> base);
  void choose_saving();
  void restore();
  double train_step();
  /// All gradients of the step first, then all updates.
  double whole_step(const std::vector<Batch>& micros);
  /// Each parameter is updated inside backward, as soon as its gradient is final.
  double layerwise_step(const std::vector<Batch>& micros);
  /// Updates the trained parameter `index`.
  void update(const ParameterList& trained, size_t index, const StepInfo& info);
  /// `norm`: of what is clipped together.
  StepInfo step_info(double norm) const;
  [[noreturn]] void refuse_not_finite(double loss, const std::string& where) const;
  void evaluate();
  void save();
  const StageOptions& stage() const;
  std::string path(const std::string& name) const { return directory_ + "/" + name; }

  Ledger& ledger_;
  Recipe recipe_;
  std::string directory_;
  Callbacks callbacks_;
  DataSources sources_;
  std::unique_ptr<TrainTokenizer> tokenizer_;
  std::unique_ptr<Mixture> mixture_;
  RunModel run_;
  std::unique_ptr<Distillation> distillation_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Bf16Weights> bf16_weights_;
  std::unique_ptr<Executor<float>> executor_;
  std::unique_ptr<RunLog> log_;
  Progression progression_;
  double last_norm_ = 0;
  std::string saving_name_;
};

}  // namespace mneme::train
