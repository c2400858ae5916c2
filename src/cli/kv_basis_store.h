#pragma once

#include "cli/kv_auto.h"
#include "context/kv_policy.h"

namespace mneme::cli {

/// Gives a policy that needs bases those of this model: read from the user's folder, or fitted to the text of `options`
/// (or to text that the model makes up) and remembered there. Says on stderr what it did. Throws Error.
void give_bases(KvPolicy& policy, const KvAutoOptions& options);

/// For a plan alone: gives a policy with measured ranks the bases that are remembered, so that bytes are exact. Nothing
/// is fitted; without remembered ones it says on stderr whose bytes the plan has.
void recall_bases(KvPolicy& policy, const KvAutoOptions& options);

}  // namespace mneme::cli
