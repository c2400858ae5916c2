#pragma once

#include <string>

namespace mneme::train {

/// The report of a run, finished or not, as one self-contained HTML page: totals, the recipe, and plots of loss,
/// recall, gradients, speed and memory over the steps. Steps that were trained twice, because a run was killed after
/// its last checkpoint, appear once. Reads log.jsonl and recipe.toml of `directory`. Throws Error: kNotFound without a
/// log, kCorruptData with the line that is no JSON object (an unfinished last line is left out).
std::string run_report(const std::string& directory);

}  // namespace mneme::train
