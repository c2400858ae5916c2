#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "train/abacus/task.h"

namespace mneme {

struct CompletionOptions {
  uint32_t per_task = 20;     ///< Completions of each task.
  float temperature = 0.2f;   ///< Nothing else shapes the draw. 0: the likeliest token; then all of a task are alike.
  uint64_t seed = 1;          ///< A completion's draws depend on the seed, its task and its number alone.
  uint32_t most_tokens = 96;  ///< Of a completion, which ends before with its line.
};

/// Completions of tasks, judged by running them.
struct CompletionOutcomes {
  std::vector<uint8_t> passed;                ///< [tasks x per_task], a task's side by side.
  std::array<uint64_t, 4> n_by_verdict = {};  ///< By train::abacus::Verdict.
  uint64_t n_tokens = 0;                      ///< Generated, of all completions.
  double seconds = 0;                         ///< Prompts included.

  /// Mean over the tasks of pass@1, which with k = 1 is the share that passed.
  double pass_at_1() const;
};

/// Lets a model complete each task's prompt. The engine's plan must have room for some sequences of prompt and
/// completion; as many run side by side as it has. Throws Error.
CompletionOutcomes complete_tasks(Engine& engine, std::span<const train::abacus::Task> tasks,
                                  const CompletionOptions& options,
                                  const std::function<void(uint64_t done, uint64_t all)>& progress);

}  // namespace mneme
