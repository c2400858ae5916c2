#pragma once

#include <functional>
#include <memory>
#include <span>

#include "context/kv_bases.h"
#include "engine/engine.h"

namespace mneme {

/// Second moments of the keys and values that the model has while it reads `tokens` in windows of its context, 1024
/// tokens at most. `progress` gets tokens read and all. Throws Error(kInvalidArgument) without tokens.
std::shared_ptr<const KvMoments> collect_kv_moments(Engine& engine, std::span<const TokenId> tokens,
                                                    const std::function<void(uint64_t, uint64_t)>& progress);

/// The bases that `policy` needs (KvPolicy::needs_bases), with these ranks by layer; without any, with those that are
/// equal in all layers. A layer whose ranks are 0 gets none. Parallel inside. Throws Error(kInvalidArgument) when keys
/// are not finite; Error(kUnsupported) for a model without keys and values.
std::shared_ptr<const KvBases> fit_kv_bases(const Model& model, const KvMoments& moments, const KvPolicy& policy,
                                            std::span<const KvRanks> ranks = {});

/// Both: bases of equal ranks from a text.
std::shared_ptr<const KvBases> fit_kv_bases(Engine& engine, std::span<const TokenId> tokens, const KvPolicy& policy,
                                            const std::function<void(uint64_t, uint64_t)>& progress);

}  // namespace mneme
