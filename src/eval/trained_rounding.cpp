#include "eval/trained_rounding.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "engine/calibration.h"
#include "train/data/mixture.h"
#include "train/export_gguf.h"
#include "train/recall_eval.h"
#include "train/sampler.h"
#include "train/trainer.h"
#include "weights/quantize.h"

namespace mneme {
namespace {

using namespace train;

constexpr size_t kAnswerTokens = 6144;
constexpr uint64_t kFirstSeed = 5, kEvalSeed = 77, kCalibrationSeed = 4;

SourceOptions books() {
  SourceOptions options;
  options.books = "shared:data/books";
  return options;
}

}  // namespace

TrainedRounding::TrainedRounding()
    : folder_(fmt::format("{}/mneme-trained-rounding-{}", std::filesystem::temp_directory_path().string(), ::getpid())),
      sources_(open_sources(books(), {})),
      tokenizer_(std::make_unique<TrainTokenizer>(sentencepiece_model_of(open_gguf(kModel)))) {
  std::filesystem::create_directories(folder_);
}

TrainedRounding::~TrainedRounding() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

Recipe TrainedRounding::recipe(bool learned_steps, bool has_teacher, uint64_t seed) const {
  Recipe recipe;
  recipe.seed = seed;
  recipe.micro_batch_tokens = kBatchTokens;
  recipe.base = kModel;
  recipe.model.context = kWindow;
  recipe.weight_rounding = WeightRounding::parse(kFormat);
  recipe.weight_rounding.learned_steps = learned_steps;
  if (has_teacher) recipe.teacher.file = kModel;
  recipe.sources = books();
  recipe.rate = {RateSchedule::Shape::kCosine, 1e-3f, 0.1f, 20, kSteps, 0};
  recipe.optimizer.kind = OptimizerKind::kAdamW;
  recipe.optimizer.adamw.weight_decay = 0;
  recipe.eval_every = 0;
  recipe.checkpoint_minutes = 1e6;
  recipe.stages = {{kSteps, kWindow, kBatchTokens, 0.4, 0.3, 0}};
  return recipe;
}

double TrainedRounding::perplexity_of(const std::string& path) {
  if (const auto found = known_.find(path); found != known_.end()) return found->second;
  Ledger ledger;
  const ModelFile file = open_gguf(path);
  LlamaSizes sizes = llama_sizes_of(file);
  sizes.context = kWindow;
  LlamaOptions options;
  options.base = &file;
  LlamaModel<float> model(ledger, sizes, options);
  Executor<float> executor(ledger, model.program(), model.parameter_list());
  const double loss =
      measure_dialogue_loss(executor, model, *tokenizer_, *sources_.texts, kAnswerTokens, kWindow, kEvalSeed);
  return known_[path] = std::exp(loss);
}

double TrainedRounding::rounded(bool feeds_errors) {
  const std::string path = folder_ + (feeds_errors ? "/gptq.gguf" : "/nearest.gguf");
  if (known_.contains(path)) return known_[path];
  QuantizeOptions how;
  how.recipe = find_quant_recipe(kFormat);
  how.lossy = true;
  Calibration calibration;
  if (feeds_errors) {
    Ledger ledger;
    PlanRequest request;
    request.context = kWindow;
    const auto engine = Engine::load(kModel, request, ledger);
    const Recipe training = recipe(false, false, kFirstSeed);
    const Mixture mixture(*tokenizer_, sources_, training.mixture, kCalibrationSeed);
    std::vector<TokenId> tokens;
    for (size_t step = 0; step < 16; ++step) {
      const OwnedBatch batch = mixture.batch(step, training.stages.front());
      tokens.insert(tokens.end(), batch.tokens.begin(), batch.tokens.end());
    }
    CalibrationOptions options;
    options.window = kWindow;
    options.wants_gram = [](const std::string& name) { return name.starts_with("blk."); };
    calibration = calibrate(*engine, tokens, options, [](uint64_t, uint64_t) {});
    how.calibration = &calibration;
    how.gptq = true;
  }
  Ledger ledger;
  const auto source = open_source(kModel, ledger);
  quantize_model(*source, path, how, ledger);
  return perplexity_of(path);
}

double TrainedRounding::trained(bool learned_steps, bool has_teacher) {
  double loss = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    loss += std::log(trained_once(learned_steps, has_teacher, kFirstSeed + seed)) / kSeeds;
  }
  return std::exp(loss);
}

double TrainedRounding::trained_once(bool learned_steps, bool has_teacher, uint64_t seed) {
  const std::string name =
      fmt::format("{}/{}{}-{}", folder_, learned_steps ? "learned" : "fixed", has_teacher ? "-taught" : "", seed);
  const std::string path = name + ".gguf";
  if (known_.contains(path)) return known_[path];
  Ledger ledger;
  Trainer trainer(ledger, recipe(learned_steps, has_teacher, seed), "", name, false, {});
  trainer.run();
  const ModelFile base = open_gguf(kModel);
  export_gguf(path, "trained", trainer.model(), trainer.tokenizer(), DType::kQ8_0, &base);
  return perplexity_of(path);
}

}  // namespace mneme
