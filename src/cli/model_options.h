#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "cli/kv_auto.h"
#include "engine/plan.h"

namespace mneme::cli {

/// The options of every command that opens a model for running: MODEL --memory --context --kv --batch --no-pack
/// --adapter, and some have --sequences.
struct ModelOptions {
  std::string model;
  std::string memory, context;
  std::string kv = "f16", kv_text;
  double kv_bound = 0.02;
  uint32_t batch = 0;
  uint32_t sequences = 1;  ///< 0: as many as fit.
  bool no_pack = false;
  std::vector<std::string> adapters;

  /// Adds the options to a command.
  void add_to(CLI::App& command, bool with_sequences = false);
  /// Checked form; with `--kv auto` after measuring. A policy that needs bases gets them unless only a plan is wanted.
  /// Throws Error.
  PlanRequest request(bool to_run = true) const;
  /// What `--kv auto` works with.
  KvAutoOptions kv_auto() const { return {model, memory, kv_text, kv_bound, !no_pack}; }
};

}  // namespace mneme::cli
