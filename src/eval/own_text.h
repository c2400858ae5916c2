#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/engine.h"

namespace mneme {

/// How a model is made to write a text by itself.
struct OwnTextOptions {
  enum class First : uint8_t {
    kBeginning,   ///< Pieces begin as every text does (after BOS, or a line break): what a chat will see.
    kVocabulary,  ///< Behind that, one normal token drawn at random, all alike: more of what the model knows (LLM-QAT,
                  ///< arXiv 2305.17888, section 3.1, without its greedy start).
  };
  First first = First::kBeginning;
  uint64_t seed = 1;
  uint32_t piece = 0;  ///< Most tokens of a piece; 0: the context. A piece also ends where the model ends it.
};

/// `n_tokens` of text that the model makes up itself, sampled at temperature 1 with no other limits, for users who give
/// none: no data of anybody is read. The same seed gives the same text.
std::vector<TokenId> own_text(Engine& engine, size_t n_tokens, const OwnTextOptions& options = {});

}  // namespace mneme
