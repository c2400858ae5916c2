#pragma once

#include <functional>
#include <memory>
#include <span>

#include "context/kv_bases.h"
#include "engine/engine.h"

namespace mneme {

/// The bases that `policy` needs (KvPolicy::needs_bases), from the keys and values that the model has while it reads
/// `tokens` in windows of its context, 1024 tokens at most. `progress` gets tokens read and all. Throws
/// Error(kInvalidArgument) without tokens, or when keys are not finite; Error(kUnsupported) for a model without keys
/// and values.
std::shared_ptr<const KvBases> fit_kv_bases(Engine& engine, std::span<const TokenId> tokens, const KvPolicy& policy,
                                            const std::function<void(uint64_t, uint64_t)>& progress);

}  // namespace mneme
