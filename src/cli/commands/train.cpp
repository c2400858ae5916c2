#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "base/atomic_file.h"
#include "base/byte_size.h"
#include "base/error.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/training_watch.h"
#include "train/data/story_source.h"
#include "train/export_adapter.h"
#include "train/export_gguf.h"
#include "train/finished_run.h"
#include "train/recall_eval.h"
#include "train/run_report.h"
#include "train/sampler.h"
#include "train/trainer.h"
#include "weights/model_file.h"

namespace mneme::cli {
namespace {

struct TrainOptions {
  std::string recipe, out, memory;
  bool resume = false;
};

void run_training(const TrainOptions& options, const GlobalOptions& global) {
  const std::string directory =
      options.out.empty() ? "runs/" + std::filesystem::path(options.recipe).stem().string() : options.out;
  const std::string text = read_text_file(options.recipe, uint64_t{16} << 20);
  train::Recipe recipe = train::parse_recipe(text, options.recipe);
  Ledger ledger(options.memory.empty() ? Ledger::kUnlimited : parse_byte_size(options.memory));
  TrainingWatch watch(global.json);
  train::Trainer trainer(ledger, recipe, text, directory, options.resume, watch.callbacks(recipe.name));
  if (!global.json) fmt::print("{}\n", trainer.memory_plan());
  const bool complete = trainer.run();
  watch.finish();
  const train::Progression& done = trainer.progression();
  if (global.json) {
    const Json result = {{"complete", complete},
                         {"steps", done.step},
                         {"tokens", done.tokens},
                         {"seconds", done.seconds},
                         {"loss_average", done.loss_average},
                         {"directory", directory}};
    fmt::print("{}\n", result.dump());
  } else {
    fmt::print("{} after {} steps, {} tokens; run directory {}\n",
               complete ? "complete" : "stopped (continue with --resume)", done.step, done.tokens, directory);
  }
}

struct ExportOptions {
  std::string directory, out, type;
  float blend = 1;
};

void run_export(const ExportOptions& options, const GlobalOptions& global) {
  Ledger ledger;
  train::FinishedRun run = train::load_run(ledger, options.directory);
  if (options.blend < 1) {
    if (run.base == nullptr || run.recipe.adapter) {
      fail(ErrorCode::kInvalidArgument,
           "[export] expected a run with a base and without an adapter to blend with, found {}",
           run.base == nullptr ? "no base" : "an adapter, which --adapter FILE:SCALE scales");
    }
    train::blend_with_base(*run.base, options.blend, *run.model);
  }
  // An adapter above random matrices is of use with them alone: they are added up.
  const bool adapter = run.recipe.adapter && run.base != nullptr;
  const std::string name = options.type.empty() ? (adapter ? "F32" : "Q8_0") : options.type;
  const DTypeInfo* type = find_dtype(name);
  if (type == nullptr) fail(ErrorCode::kInvalidArgument, "[export] expected a type such as Q8_0, found {}", name);
  const std::string usual = options.directory + (adapter ? "/adapter.gguf" : "/model.gguf");
  const std::string out = options.out.empty() ? usual : options.out;
  if (adapter) {
    train::export_adapter(out, run.recipe.name, *run.model, *run.recipe.adapter, *run.base, type->dtype);
  } else {
    train::export_gguf(out, run.recipe.name, *run.model, *run.tokenizer, type->dtype, run.base.get());
  }
  const uint64_t bytes = std::filesystem::file_size(out);
  if (global.json) {
    fmt::print("{}\n",
               Json{{"file", out}, {"bytes", bytes}, {"type", type->name}, {"step", run.progression.step}}.dump());
  } else {
    fmt::print("{}: {} as {}, step {}\n", out, format_byte_size(bytes), type->name, run.progression.step);
  }
}

struct ReportOptions {
  std::string directory, out;
};

void run_report(const ReportOptions& options, const GlobalOptions& global) {
  const std::string out = options.out.empty() ? options.directory + "/report.html" : options.out;
  AtomicFile file(out);
  file.write(train::run_report(options.directory));
  file.commit();
  fmt::print("{}\n", global.json ? Json{{"file", out}}.dump() : out);
}

struct EvalOptions {
  std::string directory, model;
  std::vector<size_t> distances;
  size_t probes = 200;
  uint64_t seed = 99;
};

/// Another model of the same vocabulary and at least the same context, for comparison on the same data.
std::unique_ptr<train::LlamaModel<float>> model_in_place_of(Ledger& ledger, const ModelFile& file,
                                                            const train::LlamaSizes& expected) {
  train::LlamaSizes sizes = train::llama_sizes_of(file);
  if (sizes.vocabulary != expected.vocabulary || sizes.context < expected.context) {
    fail(ErrorCode::kInvalidArgument,
         "[eval] {}: expected a vocabulary of {} and a context of at least {}, found {} and {}", file.path(),
         expected.vocabulary, expected.context, sizes.vocabulary, sizes.context);
  }
  sizes.context = expected.context;
  train::LlamaOptions options;
  options.base = &file;
  return std::make_unique<train::LlamaModel<float>>(ledger, sizes, options);
}

void run_eval(const EvalOptions& options, const GlobalOptions& global) {
  Ledger ledger;
  train::FinishedRun run = train::load_run(ledger, options.directory);
  std::vector<std::string> stories;
  if (std::filesystem::exists(options.directory + "/stories.txt"))
    stories = train::read_stories(options.directory + "/stories.txt");
  const train::DataSources sources = train::open_sources(run.recipe.sources, std::move(stories));
  std::unique_ptr<ModelFile> other;
  if (!options.model.empty()) {
    run.model.reset();
    other = std::make_unique<ModelFile>(open_gguf(options.model));
    run.model = model_in_place_of(ledger, *other, run.recipe.model);
  }
  train::Executor<float> executor(ledger, run.model->program(), run.model->parameter_list());
  const size_t batch_tokens = run.recipe.model.context;
  Json result = {{"step", run.progression.step}, {"tokens", run.progression.tokens}};
  if (!global.json) fmt::print("step {}\n", run.progression.step);
  const auto report_loss = [&](const char* name, const char* what, double loss) {
    result[name] = loss;
    if (!global.json) fmt::print("loss on held-out {}: {:.3f} nats per token\n", what, loss);
  };
  constexpr size_t kLossTokens = 32768;
  if (sources.texts != nullptr) {
    report_loss("text_loss", "text",
                train::measure_text_loss(executor, *run.model, *run.tokenizer, *sources.texts, kLossTokens,
                                         batch_tokens, options.seed));
  }
  if (sources.texts != nullptr && run.recipe.mixture.generated_dialogues) {
    report_loss("dialogue_loss", "dialogues",
                train::measure_dialogue_loss(executor, *run.model, *run.tokenizer, *sources.texts, kLossTokens / 8,
                                             batch_tokens, options.seed));
  }
  if (sources.chat != nullptr) {
    report_loss("chat_loss", "conversations",
                train::measure_chat_loss(executor, *run.model, *run.tokenizer, *sources.chat, kLossTokens, batch_tokens,
                                         options.seed));
  }
  if (!options.distances.empty() && sources.texts == nullptr) {
    fail(ErrorCode::kInvalidArgument,
         "[eval] expected a recipe with texts, which distract between fact and question, found one without");
  }
  const std::vector<size_t> usual =
      run.recipe.mixture.generated_dialogues ? run.recipe.eval_distances : std::vector<size_t>();
  for (const size_t distance : options.distances.empty() ? usual : options.distances) {
    const auto score = train::measure_recall(executor, *run.model, *run.tokenizer, *sources.texts, distance,
                                             options.probes, batch_tokens, options.seed);
    result["recall"].push_back({{"distance", distance},
                                {"value", score.value},
                                {"answer", score.answer},
                                {"refusal", score.refusal},
                                {"answerable", score.n_answerable},
                                {"refusals", score.n_refusal}});
    if (!global.json) {
      fmt::print("{:>6} tokens: value {:.1f} %, whole answer {:.1f} % of {}, refusal {:.1f} % of {}\n", distance,
                 100 * score.value, 100 * score.answer, score.n_answerable, 100 * score.refusal, score.n_refusal);
    }
  }
  if (global.json) fmt::print("{}\n", result.dump());
}

}  // namespace

void add_train(CLI::App& app, GlobalOptions& global) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App* command = app.add_subcommand("train", "Train a model from a recipe, or a small embedding model");
  CLI::Option* recipe = command->add_option("RECIPE", options->recipe, "Recipe file (TOML)");
  command->add_option("-o,--out", options->out, "Run directory (default: runs/NAME-OF-RECIPE)");
  command->add_flag("--resume", options->resume, "Continue from the newest checkpoint of the run directory");
  command->add_option("--memory", options->memory,
                      "Limit for weights, gradients, optimizer and activations (default: none)");
  command->footer("Example:\n  mneme train recipes/pocket.toml --memory 1G --out runs/pocket");

  auto exporting = std::make_shared<ExportOptions>();
  CLI::App* export_command =
      command->add_subcommand("export", "Write the newest checkpoint of a run as a GGUF file, or its adapter");
  export_command->add_option("DIR", exporting->directory, "Run directory")->required();
  export_command->add_option("-o,--out", exporting->out, "File to write (default: DIR/model.gguf or DIR/adapter.gguf)");
  export_command->add_option(
      "--type", exporting->type,
      "F32, F16, BF16 or Q8_0 (default: Q8_0, F32 for adapters); linear layers of quantisation-aware "
      "training and ternary experts keep the type that they were trained for, frozen matrices in blocks their bytes");
  export_command
      ->add_option("--blend", exporting->blend,
                   "Part of the way from the weights of the base to the trained ones, for runs that began from a base")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  export_command->footer("Example:\n  mneme train export runs/pocket --type Q8_0 --out models/pocket.gguf");
  export_command->callback([exporting, &global] { run_export(*exporting, global); });

  auto reporting = std::make_shared<ReportOptions>();
  CLI::App* report_command =
      command->add_subcommand("report", "Plots of loss, recall, speed and memory as one HTML page");
  report_command->add_option("DIR", reporting->directory, "Run directory; the run may still be going on")->required();
  report_command->add_option("-o,--out", reporting->out, "File to write (default: DIR/report.html)");
  report_command->footer("Example:\n  mneme train report runs/pocket");
  report_command->callback([reporting, &global] { run_report(*reporting, global); });

  auto evaluating = std::make_shared<EvalOptions>();
  CLI::App* eval_command =
      command->add_subcommand("eval", "Recall of held-out facts and text loss of the newest checkpoint");
  eval_command->add_option("DIR", evaluating->directory, "Run directory")->required();
  eval_command->add_option("--model", evaluating->model,
                           "Measure this GGUF file of the same vocabulary instead, such as the base of an adapter");
  eval_command->add_option("--distance", evaluating->distances,
                           "Tokens between fact and question (default: the recipe's)");
  eval_command->add_option("--probes", evaluating->probes, "Questions per distance")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  eval_command->add_option("--seed", evaluating->seed, "Seed of the probes")->capture_default_str();
  eval_command->footer("Example:\n  mneme train eval runs/pocket --distance 512 --distance 3000");
  eval_command->callback([evaluating, &global] { run_eval(*evaluating, global); });

  add_train_embedder(*command, global);
  add_train_sweep(*command, global);

  command->callback([command, recipe, options, &global] {
    if (!command->get_subcommands().empty()) return;
    if (recipe->count() == 0) throw CLI::RequiredError("RECIPE");
    run_training(*options, global);
  });
}

}  // namespace mneme::cli
