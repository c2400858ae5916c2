#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "train/trainer.h"

/// Many runs from one recipe: a sweep file is a recipe with axes, `[[axis.NAME]]` tables that each have a `label` and the
/// keys that they change. The runs are all combinations of one table from each axis, the first axis changing slowest:
///
///     [[axis.optimizer]]
///     label = "galore"
///     optimizer = {kind = "galore", rank = 64, rate = 1e-2}
///
/// Tables are merged key by key; any other value, lists included, takes the place of the recipe's.
namespace mneme::train {

struct SweepRun {
  std::string name;                                          ///< Labels joined by '-'; the run's folder.
  std::vector<std::pair<std::string, std::string>> labels;   ///< Axis and label, in the order of the file.
  std::string recipe_text;
  Recipe recipe;
};

/// The runs of a sweep file. Throws Error(kInvalidArgument) for a file without axes, labels that cannot name a folder or
/// are not unique, and recipes that are not valid.
std::vector<SweepRun> parse_sweep(std::string_view text, const std::string& source);

struct SweepOptions {
  std::string directory;        ///< Holds a run directory for each run, and runs.jsonl.
  uint64_t memory_limit = Ledger::kUnlimited;
  size_t loss_tokens = 65536;   ///< Held-out tokens that the final loss is measured on.
};

/// Trains the runs one after the other, continuing where an earlier call was stopped; returns false when stopped. After
/// each run, DIR/runs.jsonl has a line for each that is complete: its labels, `parameters` (without embedding and head),
/// `tokens`, `loss` (held-out text, nats per token), `seconds`, `bytes` by class, and the precision where it is low, as
/// `mneme eval scaling-fit` reads it. Runs whose [data] and [tokenizer] are equal share the tokenizer of the first of
/// them whatever their seeds, and its stories when the seed is the same. `done` is called with each line.
bool run_sweep(const std::vector<SweepRun>& runs, const SweepOptions& options, const Trainer::Callbacks& callbacks,
               const std::function<void(const SweepRun&, const Json&)>& done);

}  // namespace mneme::train
