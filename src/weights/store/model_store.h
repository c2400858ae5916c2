#pragma once

#include <string>

#include "weights/store/hub.h"

namespace mneme {

/// The folder where pulled models are kept: $MNEME_MODELS, else $XDG_CACHE_HOME/mneme, else ~/.cache/mneme.
/// Throws Error(kNotFound) when none of these is set.
std::string model_store_folder();

/// The file of a model that a user names: a path; or a pulled model as it was named to pull_model(), or by its file
/// name alone ("OWNER/REPO:Q4_K_M", "model-Q4_K_M.gguf"). Of a sharded model the first shard, of a checkpoint its
/// folder. Throws Error(kNotFound) with the command that would pull it, kInvalidArgument when several models fit the
/// name.
std::string resolve_model(const std::string& name);
std::string resolve_model(const std::string& name, const std::string& store);

/// The folder of a repository's files within a store.
std::string hub_folder(const std::string& store, const HubReference& reference);

}  // namespace mneme
