#include "train/finished_run.h"

#include "base/atomic_file.h"
#include "base/error.h"

namespace mneme::train {

FinishedRun load_run(Ledger& ledger, const std::string& directory) {
  FinishedRun run;
  const std::string recipe = directory + "/recipe.toml";
  run.recipe = parse_recipe(read_text_file(recipe, uint64_t{16} << 20), recipe);
  run.tokenizer = std::make_unique<TrainTokenizer>(read_text_file(directory + "/tokenizer.model"));
  std::unique_ptr<ModelFile> base = open_base(run.recipe);
  run.recipe.model.vocabulary = run.tokenizer->size();
  static_cast<RunModel&>(run) = build_model(ledger, std::move(base), run.recipe);
  // What is frozen at its drawn values is in no checkpoint.
  if (run.recipe.adapter && run.base == nullptr) run.model->initialise(run.recipe.seed);
  const auto checkpoints = list_checkpoints(directory);
  if (checkpoints.empty()) fail(ErrorCode::kNotFound, "[run] expected a checkpoint in {}, found none", directory);
  for (size_t i = 0;; ++i) {
    try {
      run.progression = read_checkpoint(checkpoints[i], run.model->parameters(), nullptr);
      return run;
    } catch (const Error&) {
      if (i + 1 == checkpoints.size()) throw;
    }
  }
}

}  // namespace mneme::train
