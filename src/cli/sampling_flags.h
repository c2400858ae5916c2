#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/generation.h"

namespace mneme::cli {

/// The options of every command that generates text: length, sampling, stop strings, grammars.
struct SamplingFlags {
  int n_predict = 0;
  std::vector<std::string> stop, samplers, logit_bias;
  std::string grammar_file, schema_file;
  int logprobs = -1;
  int64_t seed = -1;
  SamplingOptions options;

  void add_to(CLI::App& command);
  /// Whether request() brings a grammar, which the plan must know of.
  bool has_grammar() const { return !grammar_file.empty() || !schema_file.empty(); }
  /// A request without a prompt. Reads grammar files; throws Error.
  GenerationRequest request(Engine& engine) const;
};

}  // namespace mneme::cli
