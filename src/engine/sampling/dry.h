#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/byte_matcher.h"
#include "engine/sampling/candidates.h"

namespace mneme {

/// How long a repetition each token would continue: for every earlier place in `tokens` (oldest first) where the text that
/// ends there equals the end of `tokens` over L tokens (capped at `limit`), the token that followed gets max(L). Only
/// L >= min_length is reported; ids ascend. O(n) by the Z algorithm on the reversed text.
std::vector<std::pair<TokenId, size_t>> repetition_lengths(std::span<const TokenId> tokens, size_t limit,
                                                           size_t min_length);

/// DRY ("don't repeat yourself", p-e-w 2024): a token t that would make a repetition of L >= allowed_length tokens longer
/// loses  multiplier * base^(L - allowed_length).
///
/// Breakers are strings that end a repetition: only tokens after the last place where a breaker ended count. They are found
/// in the text itself, so a breaker may lie across any number of tokens, and a token whose own text holds a breaker is
/// never penalised.
class Dry {
 public:
  Dry(float multiplier, float base, size_t allowed_length, std::span<const std::string> breakers);

  /// Tells the text of the token that was accepted.
  void accept(std::string_view piece);
  /// `tokens`: the accepted tokens inside the window, oldest first. piece_of(id) is the text of a token.
  void apply(Candidates& candidates, std::span<const TokenId> tokens,
             const std::function<std::string(TokenId)>& piece_of) const;
  bool active() const { return multiplier_ > 0; }

  /// Tokens accepted since a breaker ended, and the place of the breaker search: the state to save.
  size_t n_since_breaker() const { return n_since_breaker_; }
  ByteMatcher::State search() const { return search_; }
  /// Continues from a saved state; false when the place is not one of this set of breakers.
  bool restore(size_t n_since_breaker, ByteMatcher::State search);

 private:
  float multiplier_, base_;
  size_t allowed_length_;
  ByteMatcher breakers_;
  ByteMatcher::State search_ = ByteMatcher::kStart;
  size_t n_since_breaker_ = 0;
};

}  // namespace mneme
