#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/byte_matcher.h"
#include "engine/grammar/token_matcher.h"
#include "engine/sampling/token_constraint.h"

namespace mneme {

/// When a lazy grammar begins to act: as soon as one of the words appears in the text or one of the tokens is taken.
/// The word, or the text of the token, is the first text that the grammar sees.
struct GrammarTrigger {
  std::vector<std::string> words;
  std::vector<TokenId> tokens;
  bool empty() const { return words.empty() && tokens.empty(); }
};

/// Where one sequence stands in its grammar. Copies are forks: they go on independently and cost a few words.
///
///   auto trie = std::make_shared<VocabularyTrie>(vocabulary);               // once a model
///   auto matcher = TokenMatcher::create(std::make_shared<Grammar>(text), trie);   // once a grammar
///   GrammarState state(matcher);                                             // once a sequence
///   TokenId t = sampler.sample(logits, &state);
///   sampler.accept(t); state.accept(t);
///
/// The sampler asks allows() for its winner and mask() only when the winner is refused (ConstraintMode::kWinnerFirst),
/// or mask() first (kExact). A token is allowed when all its bytes can be read; it may end inside a character if the
/// grammar allows a completion. Tokens that end the answer are allowed exactly when the text is complete; when the
/// grammar allows no further text they are the only ones.
///
/// Forks may be used from several threads, each by one at a time.
///
/// A lazy state allows everything until its trigger, except that a token which holds the trigger must go on as the
/// grammar says.
class GrammarState : public TokenConstraint {
 public:
  /// Throws Error(kInvalidArgument) when a trigger is empty, no token of the vocabulary, or no beginning of the
  /// grammar. What asks the matcher may throw what that throws.
  explicit GrammarState(std::shared_ptr<TokenMatcher> matcher, GrammarTrigger trigger = {});

  bool allows(TokenId id) override;
  const TokenMask& mask() override;
  /// Throws Error(kInvalidArgument) and changes nothing when the token is not allowed.
  void accept(TokenId id);

  /// Whether the answer may end here. True before the trigger of a lazy grammar.
  bool is_complete() const;
  /// Whether a token that ends the answer was accepted; nothing but such tokens is allowed after it.
  bool is_finished() const { return finished_; }
  /// Whether the grammar acts; false before the trigger of a lazy grammar.
  bool is_active() const { return active_; }

  /// The tokens accepted so far; load_state() accepts them again, starting anew.
  Json save_state() const;
  /// Throws Error(kCorruptData) when `state` is not from save_state() or does not fit the grammar; nothing changes
  /// then.
  void load_state(const Json& state);

 private:
  /// Trigger of a lazy grammar, shared between forks.
  struct Lazy {
    Lazy(GrammarTrigger trigger, std::vector<TokenMatcher::Handle> after, Ledger& ledger);

    std::vector<TokenId> tokens;  ///< ascending
    ByteMatcher words;
    std::vector<TokenMatcher::Handle> after_word;                          ///< by word: the grammar after reading it
    std::mutex mutex;                                                      ///< of `masks`
    std::map<ByteMatcher::State, std::shared_ptr<const TokenMask>> masks;  ///< by place in `words`
    Reservation memory;                                                    ///< of `words` and `masks`
  };
  struct Position {
    bool active;
    TokenMatcher::Handle at;
    ByteMatcher::State search;
  };

  std::optional<Position> after(TokenId id);
  bool is_end(TokenId id) const { return matcher_->vocabulary().is_end_of_generation(id); }
  std::shared_ptr<const TokenMask> lazy_mask();

  std::shared_ptr<TokenMatcher> matcher_;
  std::shared_ptr<Lazy> lazy_;  ///< null without a trigger
  bool active_ = true;
  bool finished_ = false;
  TokenMatcher::Handle at_;
  ByteMatcher::State search_ = ByteMatcher::kStart;
  std::shared_ptr<const TokenMask> mask_;  ///< keeps what mask() returned
  std::vector<TokenId> accepted_;
};

}  // namespace mneme
