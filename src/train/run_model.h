#pragma once

#include <memory>
#include <vector>

#include "train/data/tokenizer_trainer.h"
#include "train/llama.h"
#include "train/recipe.h"

namespace mneme::train {

/// The model of a run with the files that it stands on.
struct RunModel {
  std::unique_ptr<ModelFile> base;                  ///< recipe.base, or null.
  std::vector<std::unique_ptr<AdapterFile>> below;  ///< Frozen adapters of the base.
  std::unique_ptr<LlamaModel<float>> model;
};

/// Opens the base of a recipe, when it has one, and completes the recipe's sizes by it. Throws Error where the file and
/// the recipe contradict each other.
std::unique_ptr<ModelFile> open_base(Recipe& recipe);

/// Builds the model of a recipe whose sizes are complete; its weights are not set yet but for what is frozen.
RunModel build_model(Ledger& ledger, std::unique_ptr<ModelFile> base, const Recipe& recipe);

/// The vocabulary of a base as a SentencePiece model, so that training cuts text into the base's tokens. Throws
/// Error(kUnsupported) for vocabularies of another kind.
std::string sentencepiece_model_of(const ModelFile& base);

}  // namespace mneme::train
