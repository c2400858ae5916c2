#pragma once

#include <cstdint>

#include "engine/engine.h"

namespace mneme {

/// Brings an empty state to `n_tokens` tokens in seconds, whatever the form of its keys and values: a first text of
/// random tokens is computed, and the tokens behind it are handed to the stores as rows of keys (before RoPE) and
/// values, without a pass of the model and without attention. Each token has the rows of one of the text's last
/// kPageTokens tokens, drawn at random, the same token in all layers, and its own position.
///
/// So rows look like the model's, and no run of tokens comes twice: what a store that chooses finds does not repeat
/// from page to page. Yet neighbours are as little alike as random tokens are. Of use for measuring speed, for nothing
/// else.
///
/// Throws Error(kUnsupported) for states with layers that are no keys and values, or whose stores need queries (see
/// KvLayer::needs_queries()); Error(kIo) when a store's device fails.
void draw_context(Engine& engine, SequenceState& state, uint32_t n_tokens);

}  // namespace mneme
