#pragma once

#include <vector>

#include "model/tokenizer/token_table.h"
#include "model/tokenizer/vocabulary.h"

namespace mneme {

/// Finds the roles that the vocabulary does not name by the texts that model families use for them. Tokens found so
/// become control tokens in `table`, since files often have them as normal ones. Returns `given` completed.
SpecialTokens detect_special_tokens(TokenTable& table, SpecialTokens given);

struct EndOfGeneration {
  std::vector<TokenId> tokens;  ///< Ascending.
  /// Control tokens that are rendered all the same, since they structure an answer (<|channel|> and its like).
  std::vector<TokenId> shown;
};

/// The tokens that end an answer: eos, eot and eom, the borders of repositories and files, and every text that a model
/// family uses so; these become control tokens too. In a vocabulary with both <|return|> and <|call|> the token <|end|>
/// only closes a part of an answer.
EndOfGeneration detect_end_of_generation(TokenTable& table, const SpecialTokens& special);

}  // namespace mneme
