#include "engine/grammar/grammar_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/philox.h"
#include "base/test_error.h"
#include "engine/grammar/json_rules.h"
#include "engine/sampling/test_vocabulary.h"

namespace mneme {
namespace {

constexpr TokenId kEnd = 0;

/// Tokens of calls such as <f>{"a": 1}; number 0 ends the answer.
ListVocabulary call_vocabulary() {
  std::vector<std::string> pieces = {"</s>",   "",      "<f>",   "<",   "f",    ">",       "a<f", "<f>{",
                                     "x<f>{}", "<f>[",  "f>{\"", "<f",  "ff",   "call",    "ca",  "ll",
                                     "xcall{", "call]", "{}",    "{\"", "\":",  "\"a\":1", "}",   "{",
                                     "\"",     ":",     "1",     "é",   "\xC3", "\xA9",    " ",   "null"};
  pieces.emplace_back("\0<f>{", 5);
  pieces.emplace_back("\0<f>]", 5);
  return ListVocabulary(std::move(pieces), {kEnd});
}

std::shared_ptr<TokenMatcher> make_matcher(const std::string& gbnf, const VocabularyView& vocabulary) {
  static Ledger ledger;
  return TokenMatcher::create(std::make_shared<const Grammar>(gbnf),
                              std::make_shared<const VocabularyTrie>(vocabulary, ledger), ledger);
}

TokenId token(const VocabularyView& vocabulary, std::string_view piece) {
  for (size_t i = 0; i < vocabulary.size(); ++i) {
    if (vocabulary.piece(static_cast<TokenId>(i)) == piece) return static_cast<TokenId>(i);
  }
  ADD_FAILURE() << "no token " << piece;
  return -1;
}

void accept_all(GrammarState& state, const VocabularyView& vocabulary, const std::vector<std::string>& pieces) {
  for (const std::string& piece : pieces) state.accept(token(vocabulary, piece));
}

/// What a sequence may say, from the words of the documentation: the text before the trigger is free, and from the
/// trigger on the grammar reads.
class LazyOracle {
 public:
  LazyOracle(const std::string& gbnf, GrammarTrigger trigger, const VocabularyView& vocabulary)
      : automaton_(std::make_shared<const Grammar>(gbnf)), trigger_(std::move(trigger)), vocabulary_(vocabulary) {}

  bool allows(TokenId id) {
    const std::string piece = vocabulary_.piece(id);
    if (id == kEnd) return !active_ || automaton_.is_complete(state_);
    if (active_) return !piece.empty() && piece[0] != '\0' && read(state_, piece) != StackAutomaton::kDead;
    if (triggers(id)) return read(automaton_.start(), piece) != StackAutomaton::kDead;
    const auto [begin, end] = find_word(piece);
    return end == std::string::npos || read(automaton_.start(), (text_ + piece).substr(begin)) != StackAutomaton::kDead;
  }

  void accept(TokenId id) {
    const std::string piece = vocabulary_.piece(id);
    if (active_) {
      state_ = read(state_, piece);
    } else if (triggers(id)) {
      active_ = true;
      state_ = read(automaton_.start(), piece);
    } else if (const auto [begin, end] = find_word(piece); end != std::string::npos) {
      active_ = true;
      state_ = read(automaton_.start(), (text_ + piece).substr(begin));
    }
    text_ += piece;
  }
  bool active() const { return active_; }

 private:
  bool triggers(TokenId id) const {
    return std::find(trigger_.tokens.begin(), trigger_.tokens.end(), id) != trigger_.tokens.end();
  }

  /// Begin and end of the first word that ends inside `piece` behind the text so far; of several the longest.
  std::pair<size_t, size_t> find_word(const std::string& piece) const {
    const std::string all = text_ + piece;
    for (size_t end = text_.size() + 1; end <= all.size(); ++end) {
      size_t longest = 0;
      for (const std::string& word : trigger_.words) {
        if (all.substr(0, end).ends_with(word)) longest = std::max(longest, word.size());
      }
      if (longest > 0) return {end - longest, end};
    }
    return {std::string::npos, std::string::npos};
  }
  StackAutomaton::SetId read(StackAutomaton::SetId state, std::string_view text) {
    automaton_.limit_work();
    for (const char c : text) state = automaton_.step(state, static_cast<unsigned char>(c));
    return state;
  }

  StackAutomaton automaton_;
  GrammarTrigger trigger_;
  const VocabularyView& vocabulary_;
  std::string text_;
  bool active_ = false;
  StackAutomaton::SetId state_ = 0;
};

TEST(GrammarState, LazyMasksEqualTheirDefinition) {
  std::string rules = json_object_gbnf();
  rules.replace(rules.find("root ::= object"), 15, R"(root ::= ("<f>" | "call" | "xcall") object)");
  const ListVocabulary vocabulary = call_vocabulary();
  GrammarTrigger trigger;
  trigger.words = {"<f>", "call", "xcall"};
  trigger.tokens = {token(vocabulary, "<f")};
  const auto matcher = make_matcher(rules, vocabulary);
  PhiloxStream random(4);
  int n_active = 0, n_free = 0;
  for (int walk = 0; walk < 300; ++walk) {
    GrammarState state(matcher, trigger);
    LazyOracle oracle(rules, trigger, vocabulary);
    for (int i = 0; i < 10; ++i) {
      ASSERT_EQ(state.is_active(), oracle.active());
      std::vector<TokenId> allowed;
      const TokenMask mask = state.mask();
      for (size_t t = 0; t < vocabulary.size(); ++t) {
        const auto id = static_cast<TokenId>(t);
        const bool wanted = oracle.allows(id);
        ASSERT_EQ(mask.allows(id), wanted) << "'" << vocabulary.piece(id) << "', active " << state.is_active();
        ASSERT_EQ(state.allows(id), wanted) << "'" << vocabulary.piece(id) << "'";
        if (wanted && id != kEnd) allowed.push_back(id);
      }
      ASSERT_EQ(state.is_complete(), mask.allows(kEnd));
      ++(state.is_active() ? n_active : n_free);
      if (allowed.empty()) break;
      const TokenId next = allowed[random.next_below(allowed.size())];
      state.accept(next);
      oracle.accept(next);
    }
  }
  EXPECT_GT(n_active, 500);
  EXPECT_GT(n_free, 500);
}

TEST(GrammarState, TheAnswerEndsOnlyWhereTheTextIsComplete) {
  const ListVocabulary vocabulary = call_vocabulary();
  GrammarState state(make_matcher("root ::= \"{}\" \"1\"?", vocabulary));
  EXPECT_FALSE(state.allows(kEnd));
  EXPECT_EQ(error_of([&] { state.accept(kEnd); }),
            "[grammar] expected more text, found token 0, which ends the answer");
  state.accept(token(vocabulary, "{"));
  EXPECT_FALSE(state.mask().allows(kEnd));
  state.accept(token(vocabulary, "}"));
  EXPECT_TRUE(state.is_complete());
  EXPECT_EQ(state.mask().count(), 2u);  // "1" and the end
  GrammarState longer = state;
  longer.accept(token(vocabulary, "1"));
  EXPECT_EQ(longer.mask().count(), 1u);
  EXPECT_TRUE(longer.mask().allows(kEnd));
  state.accept(kEnd);
  EXPECT_TRUE(state.is_finished());
  EXPECT_TRUE(state.allows(kEnd));
  EXPECT_FALSE(state.allows(token(vocabulary, "1")));
  EXPECT_EQ(state.mask().count(), 1u);
  EXPECT_THROW(state.accept(token(vocabulary, "1")), Error);
  EXPECT_FALSE(longer.is_finished());
}

TEST(GrammarState, RefusedTokensChangeNothing) {
  const ListVocabulary vocabulary = call_vocabulary();
  GrammarState state(make_matcher("root ::= \"{\" \"é\" \"}\"", vocabulary));
  accept_all(state, vocabulary, {"{", "\xC3"});
  const TokenMask before = state.mask();
  EXPECT_EQ(before.count(), 1u);
  EXPECT_THAT(error_of([&] { state.accept(token(vocabulary, "1")); }), testing::EndsWith("('1') is not allowed here"));
  EXPECT_EQ(error_of([&] { state.accept(-1); }), "[grammar] expected a token below 34, found -1");
  EXPECT_EQ(error_of([&] { state.accept(34); }), "[grammar] expected a token below 34, found 34");
  EXPECT_EQ(state.mask(), before);
  accept_all(state, vocabulary, {"\xA9", "}"});
  EXPECT_TRUE(state.is_complete());
}

TEST(GrammarState, ForksGoTheirOwnWays) {
  const ListVocabulary vocabulary = call_vocabulary();
  GrammarState one(make_matcher(json_value_gbnf(), vocabulary));
  accept_all(one, vocabulary, {"{\"", "a<f", "\":"});
  GrammarState two = one;
  accept_all(one, vocabulary, {"1", "}"});
  accept_all(two, vocabulary, {"{\"", "\":"});
  EXPECT_TRUE(one.is_complete());
  EXPECT_FALSE(two.is_complete());
  two = one;
  EXPECT_TRUE(two.is_complete());
  EXPECT_EQ(two.mask(), one.mask());
}

TEST(GrammarState, SavedStatesGoOnWhereTheyWere) {
  const ListVocabulary vocabulary = call_vocabulary();
  GrammarTrigger trigger;
  trigger.words = {"<f>"};
  const auto matcher = make_matcher("root ::= \"<f>\" \"{}\"{2}", vocabulary);
  GrammarState state(matcher, trigger);
  for (const char* piece : {"ca", "a<f", ">", "{}", "{"}) {
    GrammarState other(matcher, trigger);
    other.load_state(parse_json(state.save_state().dump(), "state"));
    EXPECT_EQ(other.mask(), state.mask());
    EXPECT_EQ(other.is_active(), state.is_active());
    EXPECT_EQ(other.save_state(), state.save_state());
    state.accept(token(vocabulary, piece));
  }
  const TokenMask before = state.mask();
  for (const char* bad : {"1", "{}", R"({"version": 2, "tokens": []})", R"({"version": 1, "tokens": ["a"]})",
                          R"({"version": 1, "tokens": [99999]})", R"({"version": 1, "tokens": [7, 7]})"}) {
    EXPECT_THAT(error_of([&] { state.load_state(parse_json(bad, "state")); }),
                testing::StartsWith("[load grammar state]"))
        << bad;
    EXPECT_EQ(state.mask(), before);
  }
}

TEST(GrammarState, TriggersThatCannotBeginAreRefused) {
  const ListVocabulary vocabulary = call_vocabulary();
  const auto matcher = make_matcher("root ::= \"<f>\" \"{}\"", vocabulary);
  const auto error_with = [&](std::vector<std::string> words, std::vector<TokenId> tokens) {
    return error_of([&] { GrammarState state(matcher, {std::move(words), std::move(tokens)}); });
  };
  EXPECT_EQ(error_with({""}, {}), "[grammar trigger] expected a word, found an empty one");
  EXPECT_EQ(error_with({"<f>", "f>"}, {}),
            "[grammar trigger] expected a word that the grammar can begin with, found 'f>'");
  EXPECT_EQ(error_with({}, {34}), "[grammar trigger] expected tokens below 34, found 34");
  EXPECT_EQ(error_with({}, {-1}), "[grammar trigger] expected tokens below 34, found -1");
  EXPECT_THAT(error_with({}, {token(vocabulary, "call")}),
              testing::HasSubstr("a token that the grammar can begin with"));
  EXPECT_THAT(error_with({std::string(70000, '<')}, {}),
              testing::HasSubstr("at most 65536 bytes of words, found 70000"));
  EXPECT_EQ(error_with({"<f>{"}, {token(vocabulary, "<f>")}), "no error");
}

TEST(GrammarState, SequencesShareOneMatcherFromSeveralThreads) {
  const ListVocabulary vocabulary = call_vocabulary();
  const auto matcher = make_matcher(json_value_gbnf(), vocabulary);
  std::vector<std::string> results(4);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < results.size(); ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t seed = 0; seed < 100; ++seed) {
        PhiloxStream random(seed);
        GrammarState state(matcher);
        for (int i = 0; i < 30; ++i) {
          const TokenMask& mask = state.mask();
          if (mask.count() == 0 || (mask.count() == 1 && mask.allows(kEnd))) break;
          TokenId id = kEnd;
          while (id == kEnd || !mask.allows(id)) id = static_cast<TokenId>(random.next_below(vocabulary.size()));
          state.accept(id);
          results[t] += vocabulary.piece(id);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(results[0].size(), 500u);
  for (const std::string& result : results) EXPECT_EQ(result, results[0]);
}

}  // namespace
}  // namespace mneme
