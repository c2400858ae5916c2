#pragma once

#include "train/recipe.h"
#include "train/recipe_reader.h"

namespace mneme::train {

/// Reads [optimizer]: the kind with its parameters, the learning rate and clipping. Keys of another kind are problems.
void read_optimizer(Section section, Recipe& recipe);

}  // namespace mneme::train
