#pragma once

#include <optional>
#include <span>
#include <vector>

#include "engine/engine.h"

namespace mneme {

struct EmbeddingOptions {
  std::optional<Pooling> pooling;  ///< Default: the model's own, else mean for encoders and last for decoders.
  bool normalise = true;           ///< To length 1.
};

/// One vector [width] for a text of at least one token. An encoder sees the whole text in one pass; a text that is longer
/// than the context is refused with both numbers. Throws Error.
std::vector<float> embed(Engine& engine, std::span<const TokenId> tokens, const EmbeddingOptions& options);

/// "mean", "cls" or "last". Throws Error(kInvalidArgument) that lists them.
Pooling parse_pooling(std::string_view name);

}  // namespace mneme
