#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/engine.h"

namespace mneme {

/// Brings an empty state to `n_tokens` tokens in a moment: a first piece of random text is computed, the others are
/// copies of a page of it, and those last tokens that lie in no page yet are computed behind them. Every store then
/// holds what it would hold, byte for byte as many, but the text is one page over and over with the positions of the
/// first: of use for measuring speed, for nothing else. States that do not consist of pages from the first token on are
/// filled by draw_context(), with what it throws.
void repeat_context(Engine& engine, SequenceState& state, uint32_t n_tokens);

/// A copy of a state with memory of its own, as that of another conversation: the bytes are the same, and no page is
/// shared, unlike SequenceState::deep_copy(). Throws Error(kOutOfBudget).
std::unique_ptr<SequenceState> separate_copy(const Engine& engine, const SequenceState& state);

/// Ids for measurements: uniform, the same for a model every time.
std::vector<TokenId> random_tokens(const Model& model, size_t n);

}  // namespace mneme
