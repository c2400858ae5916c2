#pragma once

#include <memory>
#include <string>

#include "train/llama.h"
#include "train/tape/executor.h"

namespace mneme::train {

/// A frozen model that runs beside the trained one and gives it soft targets (CrossEntropy::learn_from). Its matrices
/// stay as stored; it costs its own activations and one forward a micro-batch. Its probabilities are not cached.
class Distillation {
 public:
  /// Opens the teacher and joins it to the loss of `model`. Throws Error when vocabularies differ.
  Distillation(Ledger& ledger, const TeacherOptions& options, LlamaModel<float>& model);
  Distillation(const Distillation&) = delete;
  Distillation& operator=(const Distillation&) = delete;

  const ModelFile& file() const { return file_; }
  /// Takes the memory for micro-batches of n_tokens.
  void prepare(size_t n_tokens) { executor_.prepare(n_tokens, false); }
  /// Runs the teacher over a micro-batch that the model is about to be trained on.
  void see(const Batch& batch);

 private:
  ModelFile file_;
  LlamaModel<float> model_;
  Executor<float> executor_;
  Teacher<float> teacher_;
  std::vector<float> no_weights_;
};

}  // namespace mneme::train
