#pragma once

#include <map>
#include <memory>
#include <string>

#include "budget/ledger.h"
#include "train/data/sources.h"
#include "train/data/tokenizer_trainer.h"
#include "train/recipe.h"
#include "weights/model_file.h"

namespace mneme {

/// The small pocket model in two bits (BIPOLAR2), rounded with and without training, for claims. What is compared is
/// the perplexity of what the assistant says in dialogues about held-out facts, the kind of text that the model was
/// made of: on other text, training for the rounding would gain from the text too. The data are the shared books and
/// generated dialogues.
class TrainedRounding {
 public:
  static constexpr const char* kModel = "models/pocket-mini.gguf";
  static constexpr const char* kFormat = "BIPOLAR2";
  static constexpr size_t kWindow = 512, kBatchTokens = 1024, kSteps = 120, kSeeds = 2;

  /// Throws Error where the model or the books are missing.
  TrainedRounding();
  TrainedRounding(const TrainedRounding&) = delete;
  TrainedRounding& operator=(const TrainedRounding&) = delete;
  ~TrainedRounding();

  double original() { return perplexity_of(kModel); }
  /// Rounded to nearest, or with errors fed on (GPTQ), calibrated on batches of the training data.
  double rounded(bool feeds_errors);
  /// After quantisation-aware training; what is measured is the exported file. Of the mean loss over kSeeds seeds.
  double trained(bool learned_steps, bool has_teacher);

 private:
  double perplexity_of(const std::string& path);
  train::Recipe recipe(bool learned_steps, bool has_teacher, uint64_t seed) const;
  double trained_once(bool learned_steps, bool has_teacher, uint64_t seed);

  std::string folder_;
  train::DataSources sources_;
  std::unique_ptr<train::TrainTokenizer> tokenizer_;
  std::map<std::string, double> known_;
};

}  // namespace mneme
