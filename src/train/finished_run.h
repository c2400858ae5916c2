#pragma once

#include <memory>
#include <string>

#include "train/checkpoint.h"
#include "train/data/tokenizer_trainer.h"
#include "train/llama.h"
#include "train/recipe.h"
#include "train/run_model.h"

namespace mneme::train {

/// What a run directory holds, without optimiser state: for export and evaluation.
struct FinishedRun : RunModel {
  Recipe recipe;
  std::unique_ptr<TrainTokenizer> tokenizer;
  Progression progression;
};

/// Loads a run from its newest valid checkpoint, finished or not. Throws Error.
FinishedRun load_run(Ledger& ledger, const std::string& directory);

}  // namespace mneme::train
