#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "cli/commands.h"
#include "recall/embedder.h"
#include "recall/search/filter.h"
#include "recall/store.h"

namespace mneme::cli {

/// The options of every command that uses long-term memory: --store --tenant --user --agent --session, and --embed.
class StoreAccess {
 public:
  void add_to(CLI::App& command, bool with_embedder);
  /// Opens the store (once) with the embedder that was asked for. Without `create` a missing store is an error.
  recall::Store& open(bool create);

  recall::Scope scope;
  std::string location;  ///< Set by open() when it was not given.

 private:
  std::string embedding_model_;
  Ledger ledger_;
  std::unique_ptr<recall::Embedder> embedder_;
  std::unique_ptr<recall::Store> store_;
};

/// The embedding model of that name: "builtin" is the one that comes with mneme, else a GGUF file, "" none. `ledger`
/// bears it and must outlive it. Throws Error.
std::unique_ptr<recall::Embedder> open_embedder(const std::string& name, Ledger& ledger);

/// Options that narrow what is found, for `recall` and `cube ls`.
struct FilterOptions {
  std::vector<std::string> kinds, states, tags, metadata;
  std::string speaker, source_type, source_uri, event_from, event_before, recorded_from, recorded_before, valid_at;
  double min_confidence = 0, min_importance = 0;
  bool with_expired = false;

  void add_to(CLI::App& command);
  /// Throws Error(kInvalidArgument).
  recall::Filter filter(const recall::Scope& scope) const;
};

/// A record in one line for a person: "ab12cd34ef56gh78  2026-11-29  fact  text".
std::string record_line(const recall::Record& record);

}  // namespace mneme::cli
