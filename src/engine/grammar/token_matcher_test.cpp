#include "engine/grammar/token_matcher.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/error.h"
#include "base/philox.h"
#include "engine/grammar/json_rules.h"
#include "engine/grammar/random_grammar.h"
#include "engine/sampling/test_vocabulary.h"

namespace mneme {
namespace {

/// Letters of a vocabulary; tokens are random strings of their bytes, so they also begin and end inside of characters.
struct Alphabet {
  std::vector<std::string> letters;

  std::string random_text(PhiloxStream& random, size_t n_letters) const {
    std::string out;
    for (size_t i = 0; i < n_letters; ++i) out += letters[random.next_below(letters.size())];
    return out;
  }
};

/// Every byte of the letters as a token, `n_random` longer ones, two tokens that end the answer, one without text and
/// one that begins with NUL.
ListVocabulary random_vocabulary(PhiloxStream& random, const Alphabet& alphabet, size_t n_random) {
  std::vector<std::string> pieces = {"", std::string("\0a", 2), "</s>", "<end>"};
  for (const std::string& letter : alphabet.letters) {
    for (const char byte : letter) pieces.emplace_back(1, byte);
  }
  for (size_t i = 0; i < n_random; ++i) {
    const std::string text = alphabet.random_text(random, 1 + random.next_below(5));
    const size_t begin = random.next_below(text.size());
    pieces.push_back(text.substr(begin, 1 + random.next_below(text.size() - begin)));
  }
  return ListVocabulary(std::move(pieces), {2, 3});
}

/// What the mask must be: every token read byte by byte from the text so far, by an automaton that shares nothing with
/// the matcher.
class BruteForce {
 public:
  BruteForce(std::shared_ptr<const Grammar> grammar, const VocabularyView& vocabulary)
      : automaton_(std::move(grammar)), vocabulary_(vocabulary) {}

  TokenMask mask(std::string_view text) {
    automaton_.limit_work(~uint64_t{0});
    const StackAutomaton::SetId state = run(automaton_.start(), text);
    TokenMask out(vocabulary_.size());
    for (size_t i = 0; i < vocabulary_.size(); ++i) {
      const auto id = static_cast<TokenId>(i);
      const std::string piece = vocabulary_.piece(id);
      const bool allowed = vocabulary_.is_end_of_generation(id)
                               ? automaton_.is_complete(state)
                               : !piece.empty() && piece[0] != '\0' && run(state, piece) != StackAutomaton::kDead;
      if (allowed) out.set(id);
    }
    return out;
  }

 private:
  StackAutomaton::SetId run(StackAutomaton::SetId state, std::string_view text) {
    for (const char c : text) state = automaton_.step(state, static_cast<unsigned char>(c));
    return state;
  }

  StackAutomaton automaton_;
  const VocabularyView& vocabulary_;
};

std::string difference(const TokenMask& got, const TokenMask& wanted, const VocabularyView& vocabulary) {
  std::string out;
  for (size_t i = 0; i < vocabulary.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    if (got.allows(id) == wanted.allows(id)) continue;
    out += fmt::format(" {}'{}'", wanted.allows(id) ? "-" : "+", vocabulary.piece(id));
  }
  return out;
}

/// Walks at random over allowed tokens and compares each mask on the way; returns how many were compared.
size_t compare_masks(const std::string& gbnf, const VocabularyView& vocabulary, PhiloxStream& random, int n_walks,
                     int n_steps, uint64_t room = Ledger::kUnlimited, int* n_refused = nullptr) {
  Ledger ledger;
  ledger.add_listener([&](const BudgetEvent& event) {
    if (n_refused != nullptr && event.kind == BudgetEvent::Kind::kRefuse) ++*n_refused;
  });
  const auto grammar = std::make_shared<const Grammar>(gbnf);
  const auto matcher =
      TokenMatcher::create(grammar, std::make_shared<const VocabularyTrie>(vocabulary, ledger), ledger);
  if (room != Ledger::kUnlimited) ledger.set_limit(Tier::kRam, ledger.used(Tier::kRam) + room);
  BruteForce brute(grammar, vocabulary);
  size_t n_compared = 0;
  for (int walk = 0; walk < n_walks; ++walk) {
    TokenMatcher::Handle at = matcher->start();
    std::string text;
    for (int i = 0; i < n_steps; ++i) {
      const TokenMask wanted = brute.mask(text);
      const std::shared_ptr<const TokenMask> got = matcher->mask(at);
      ++n_compared;
      if (*got != wanted) {
        ADD_FAILURE() << gbnf << "\nafter '" << text << "':" << difference(*got, wanted, vocabulary);
        return n_compared;
      }
      std::vector<TokenId> allowed;
      for (size_t t = 0; t < vocabulary.size(); ++t) {
        const auto id = static_cast<TokenId>(t);
        if (wanted.allows(id) && !vocabulary.is_end_of_generation(id)) allowed.push_back(id);
      }
      if (allowed.empty()) break;
      const std::string piece = vocabulary.piece(allowed[random.next_below(allowed.size())]);
      text += piece;
      at = matcher->advance(at, piece);
    }
  }
  return n_compared;
}

TEST(TokenMatcher, MaskEqualsBruteForceOnRandomGrammars) {
  PhiloxStream random(7);
  const Alphabet letters{{"a", "b", "é", "ü", "😀", "c"}};  // é and ü begin with the same byte
  size_t n_compared = 0;
  int n_grammars = 0;
  for (int round = 0; round < 300; ++round) {
    const std::string gbnf = RandomGrammar(random).text();
    const ListVocabulary vocabulary = random_vocabulary(random, letters, 20 + random.next_below(60));
    try {
      Grammar grammar(gbnf);
    } catch (const Error&) {
      continue;  // left recursion, or no finite text
    }
    ++n_grammars;
    n_compared += compare_masks(gbnf, vocabulary, random, 4, 8);
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(n_grammars, 80);
  EXPECT_GT(n_compared, 1000u);
}

struct Case {
  const char* what;
  std::string gbnf;
  Alphabet alphabet;
};

std::vector<Case> cases() {
  const Alphabet json{{"{", "}", "[", "]", "\"", ":", ",", " ",    "\n",   "\\", "u",
                       "d", "8", "0", "1", "-",  ".", "e", "null", "true", "é"}};
  return {
      {"any JSON: tokens cross terminals and nested values", json_value_gbnf(), json},
      {"counters near and far from their limits",
       R"(root ::= "\"" [^"]{3,40} "\"" ("," [a-z]{0,100000}){0,2})",
       {{"\"", ",", "a", "b", "é"}}},
      {"counters inside counters",
       "root ::= ((word{2,5} \";\"){1,3} \".\"){2,100000}\nword ::= [a-z]{1,30}",
       {{"a", "b", ";", "."}}},
      {"a counter that reaches its upper limit inside of tokens",
       R"(root ::= ([^;]{5,20} ";"){0,3})",
       {{"a", "b", "c", "d", "e", "f", "g", ";"}}},
      {"the end of a rule nearly everywhere",
       "root ::= (item \"!\"?)*\nitem ::= [^!]+",
       {{"a", "b", "c", "d", "!", "é"}}},
      {"ends behind one character",
       "root ::= item* \"!\"\nitem ::= [^!] | [^!] \"=\" item",
       {{"a", "b", "=", "!", "é"}}},
      {"many readings of one text",
       "root ::= ([^x]* \"x\" | [^y]+ \"y\" | [a-z]{2,9} \"z\" | [^x-z]{4})*",
       {{"a", "x", "y", "z", "é"}}},
      {"more wide places than are walked apart",
       [] {
         std::string out = "root ::= (";
         for (int i = 0; i < 20; ++i) out += fmt::format("{}[^x] {{{},{}}} \"x\"", i > 0 ? " | " : "", i, 2 * i + 1);
         return out + ")*";
       }(),
       {{"a", "x", "b"}}},
      {"one character out of close ones",
       R"(root ::= ([é] "x" | [ü€] "y" | "😀" | [😁-😃] "z" | [^é-￿])+)",
       {{"é", "ü", "€", "😀", "😁", "😃", "x", "y", "z", "a"}}},
      {"empty parts everywhere",
       "root ::= (\"a\"? (\"b\"? \"c\"?)* r)*\nr ::= (\"\" | \"d\"){0,3}",
       {{"a", "b", "c", "d"}}},
      {"recursion to the right and in the middle",
       "root ::= \"(\" root \")\" root | [^()]{0,2}",
       {{"(", ")", "a", "é"}}},
      {"only the empty text", "root ::= \"\"", {{"a"}}},
      {"NUL in the middle of a token", R"(root ::= "a" "\x00" [^b]*)", {{"a", std::string(1, '\0'), "b"}}},
  };
}

TEST(TokenMatcher, MaskEqualsBruteForceOnChosenGrammars) {
  PhiloxStream random(8);
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.what);
    for (const size_t n_tokens : {30, 400}) {
      const ListVocabulary vocabulary = random_vocabulary(random, c.alphabet, n_tokens);
      EXPECT_GT(compare_masks(c.gbnf, vocabulary, random, 6, 40), 5u);
      if (testing::Test::HasFailure()) return;
    }
  }
}

/// A JSON matcher over a vocabulary whose masks are large beside everything else.
class MatcherMemory : public testing::Test {
 protected:
  static constexpr TokenId kQuote = 4, kBrace = 5;
  static ListVocabulary make_vocabulary() {
    std::vector<std::string> pieces(100000);
    pieces[kQuote] = "\"";
    pieces[kBrace] = "[";
    for (size_t i = 6; i < 300; ++i) pieces[i] = fmt::format("a{}", i);
    return ListVocabulary(std::move(pieces), {2, 3});
  }
  std::shared_ptr<TokenMatcher> make_matcher() {
    return TokenMatcher::create(std::make_shared<const Grammar>(json_value_gbnf()), trie_, ledger_);
  }
  /// Masks along brackets, each in a state of its own; returns the last.
  static TokenMatcher::Handle open_brackets(TokenMatcher& matcher, int n) {
    TokenMatcher::Handle at = matcher.start();
    for (int i = 0; i < n; ++i) {
      EXPECT_TRUE(matcher.mask(at)->allows(kBrace));
      at = matcher.advance(at, "[");
    }
    return at;
  }

  ListVocabulary vocabulary_ = make_vocabulary();
  Ledger ledger_;
  std::shared_ptr<const VocabularyTrie> trie_ = std::make_shared<const VocabularyTrie>(vocabulary_, ledger_);
};

TEST_F(MatcherMemory, IsCountedAndGivenBack) {
  EXPECT_EQ(ledger_.used(Tier::kRam), trie_->bytes());
  EXPECT_GE(trie_->bytes(), trie_->n_nodes() * sizeof(VocabularyTrie::Node));
  EXPECT_GE(ledger_.peak(Tier::kRam, Tag::kScratch), vocabulary_.size() * sizeof(std::string));
  auto matcher = make_matcher();
  const uint64_t empty = ledger_.used(Tier::kRam, Tag::kCache);
  EXPECT_GE(empty, trie_->bytes() + matcher->bytes());
  open_brackets(*matcher, 50);
  const uint64_t full = ledger_.used(Tier::kRam, Tag::kCache);
  EXPECT_GE(full, empty + 50 * vocabulary_.size() / 8);
  EXPECT_GE(full, trie_->bytes() + matcher->bytes());
  matcher.reset();
  EXPECT_EQ(ledger_.used(Tier::kRam), trie_->bytes());
}

TEST_F(MatcherMemory, OthersGetItsRoom) {
  const auto matcher = make_matcher();
  const TokenMatcher::Handle at = open_brackets(*matcher, 50);
  const TokenMask before = *matcher->mask(at);
  const uint64_t used = ledger_.used(Tier::kRam);
  ledger_.set_limit(Tier::kRam, used + 1000);
  const Reservation other = ledger_.reserve(Tag::kKv, 400000, "context");
  EXPECT_LE(ledger_.used(Tier::kRam), used + 1000);
  EXPECT_EQ(*matcher->mask(at), before);
}

TEST_F(MatcherMemory, RefusesWhatDoesNotFitAndGoesOnWhenItDoes) {
  const auto matcher = make_matcher();
  const TokenMatcher::Handle at = matcher->start();
  ledger_.set_limit(Tier::kRam, ledger_.used(Tier::kRam));
  try {
    matcher->mask(at);
    ADD_FAILURE() << "a mask without room";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kOutOfBudget);
  }
  ledger_.set_limit(Tier::kRam, Ledger::kUnlimited);
  EXPECT_TRUE(matcher->mask(at)->allows(kBrace));
}

/// With room for a few masks only, what is remembered is forgotten again and again.
TEST(TokenMatcher, MasksAreRightWithLittleRoom) {
  PhiloxStream random(9);
  int n_refused = 0;
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.what);
    const ListVocabulary vocabulary = random_vocabulary(random, c.alphabet, 8000);
    EXPECT_GT(compare_masks(c.gbnf, vocabulary, random, 4, 25, 90'000, &n_refused), 1u);
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(n_refused, 5);
}

}  // namespace
}  // namespace mneme
