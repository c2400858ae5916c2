#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "train/adapter.h"
#include "train/data/mixture.h"
#include "train/experts.h"
#include "train/llama.h"
#include "train/optim/optimizer_options.h"
#include "train/optim/rate_schedule.h"

namespace mneme::train {

/// Everything that determines a training run; read from a TOML file.
struct Recipe {
  std::string name = "model";
  uint64_t seed = 1;
  size_t micro_batch_tokens = 4096;  ///< Tokens of one forward and backward; batches are cut into these.

  std::string base;  ///< GGUF file whose weights the run starts from, with its sizes and vocabulary; or empty.
  LlamaSizes model;  ///< With a base only `context` is set, 0 for that of the base; open_base() fills the rest.
  GemmFormat gemm = GemmFormat::kBf16;
  OperandRounding rounding;
  WeightRounding weight_rounding;
  TeacherOptions teacher;  ///< Of quantisation-aware training; an adapter has its own.
  bool bf16_weights = false;
  std::optional<AdapterOptions> adapter;  ///< Trained in place of the weights of the base.
  std::optional<ExpertOptions> experts;   ///< What the feed-forward networks of the base become.

  size_t vocabulary = 4096;
  size_t tokenizer_sample_chars = 6'000'000;

  SourceOptions sources;
  std::string story_model;  ///< GGUF file that stories are sampled from, or empty.
  size_t n_stories = 0;
  MixtureOptions mixture;

  OptimizerOptions optimizer;
  float clip_norm = 1.0f;  ///< 0: no clipping. Of all gradients together, or of each one with optimizer.layerwise.
  RateSchedule rate;

  std::vector<StageOptions> stages;

  /// The teacher that the run learns from, its own or that of the adapter; or none.
  const TeacherOptions& any_teacher() const { return adapter ? adapter->teacher : teacher; }

  double checkpoint_minutes = 4;
  size_t keep_checkpoints = 3;
  size_t eval_every = 200;  ///< Steps between evaluations; 0: never.
  size_t eval_probes = 32;  ///< Questions per distance.
  std::vector<size_t> eval_distances = {512, 1024, 3000};
};

/// Parses a recipe. `source` names it in messages. Every unknown key, wrong type, missing key and contradiction is
/// reported in one Error(kInvalidArgument), each with its line.
Recipe parse_recipe(std::string_view text, const std::string& source);

}  // namespace mneme::train
