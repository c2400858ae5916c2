#pragma once

#include <cstdint>

#include "engine/engine.h"

namespace mneme {

/// Brings an empty state to `n_tokens` tokens in a moment: a first piece of random text is computed, the others are
/// copies of a page of it, and the last tokens are computed again behind them. Every store then holds what it would
/// hold, byte for byte as many, but the text is one page over and over with the positions of the first: of use for
/// measuring speed, for nothing else. Throws Error(kUnsupported) for states that do not consist of pages from the first
/// token on.
void repeat_context(Engine& engine, SequenceState& state, uint32_t n_tokens);

/// Ids for measurements: uniform, the same for a model every time.
std::vector<TokenId> random_tokens(const Model& model, size_t n);

}  // namespace mneme
