#pragma once

#include <span>
#include <vector>

#include "engine/engine.h"

namespace mneme {

/// Logits of every token of one sequence in a fresh state, [tokens, vocabulary]: for comparisons, since it holds all of
/// them at once. Throws what Engine::run throws.
std::vector<float> sequence_logits(Engine& engine, std::span<const TokenId> tokens);

}  // namespace mneme
