#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <set>

#include "base/error.h"
#include "base/philox.h"
#include "base/utf8.h"
#include "engine/grammar/gbnf.h"
#include "engine/grammar/random_grammar.h"
#include "engine/grammar/stack_automaton.h"

namespace mneme {
namespace {

/// Matches whole texts by trying everything: the definition of what an expression means.
class Oracle {
 public:
  Oracle(const Rules& rules, std::string_view text) : rules_(rules), text_(utf8_to_code_points(text)) {}
  bool matches() { return ends(rules_.bodies[rules_.root], 0).contains(text_.size()); }

 private:
  /// Places where a match of `e` that begins at `at` may end.
  const std::set<size_t>& ends(const Expression& e, size_t at) {
    const auto key = std::make_pair(&e, at);
    const auto known = known_.find(key);
    return known != known_.end() ? known->second : known_[key] = find_ends(e, at);
  }
  std::set<size_t> find_ends(const Expression& e, size_t at) {
    switch (e.kind) {
      case Expression::Kind::kLiteral:
        for (size_t i = 0; i < e.text.size(); ++i) {
          if (at + i >= text_.size() || text_[at + i] != static_cast<uint32_t>(e.text[i])) return {};
        }
        return {at + e.text.size()};
      case Expression::Kind::kCharacters:
        if (at < text_.size() && e.characters.contains(text_[at])) return {at + 1};
        return {};
      case Expression::Kind::kRule:
        return ends(rules_.bodies[e.rule], at);
      case Expression::Kind::kAlternatives: {
        std::set<size_t> all;
        for (const Expression& part : e.parts) add(ends(part, at), all);
        return all;
      }
      case Expression::Kind::kSequence: {
        std::set<size_t> now = {at};
        for (const Expression& part : e.parts) now = after(part, now);
        return now;
      }
      case Expression::Kind::kRepeat: {
        std::set<size_t> now = {at}, all;
        // More times than min + the length of the text add nothing new.
        const uint64_t most = std::min<uint64_t>(e.max, uint64_t{e.min} + text_.size() + 1);
        for (uint64_t times = 0; !now.empty(); ++times) {
          if (times >= e.min) all.insert(now.begin(), now.end());
          if (times == most) break;
          now = after(e.parts[0], now);
        }
        return all;
      }
    }
    return {};
  }
  std::set<size_t> after(const Expression& e, const std::set<size_t>& from) {
    std::set<size_t> all;
    for (const size_t at : from) add(ends(e, at), all);
    return all;
  }
  static void add(const std::set<size_t>& some, std::set<size_t>& all) { all.insert(some.begin(), some.end()); }

  const Rules& rules_;
  std::vector<uint32_t> text_;
  std::map<std::pair<const Expression*, size_t>, std::set<size_t>> known_;
};

StackAutomaton::SetId run(StackAutomaton& automaton, std::string_view text) {
  StackAutomaton::SetId state = automaton.start();
  automaton.limit_work();
  for (const char c : text) state = automaton.step(state, static_cast<unsigned char>(c));
  return state;
}

bool accepts(StackAutomaton& automaton, std::string_view text) {
  return automaton.is_complete(run(automaton, text));
}

StackAutomaton automaton_of(std::string_view gbnf) {
  return StackAutomaton(std::make_shared<Grammar>(gbnf));
}

void expect_language(std::string_view gbnf, const std::vector<std::string>& good, const std::vector<std::string>& bad) {
  StackAutomaton automaton = automaton_of(gbnf);
  for (const std::string& text : good) EXPECT_TRUE(accepts(automaton, text)) << gbnf << " : " << text;
  for (const std::string& text : bad) EXPECT_FALSE(accepts(automaton, text)) << gbnf << " : " << text;
}

TEST(StackAutomaton, Elements) {
  expect_language(R"(root ::= "ab" | "ac")", {"ab", "ac"}, {"", "a", "abc", "bc"});
  expect_language(R"(root ::= [a-c]+ [^a-c])", {"abx", "cé", "a😀"}, {"x", "ab", "abxx"});
  expect_language(R"(root ::= .)", {"a", "é", "€", "😀", "\n"},
                  {"", "ab", "\xE9", "\xED\xA0\x80", "\xC0\x80", "\xF5\x80\x80\x80"});
  expect_language(R"(root ::= "a"{2,4} "b"?)", {"aa", "aaab", "aaaa"},
                  {"a", "aaaaa",
                   "aab"
                   "b"});
  expect_language(R"(root ::= "a"{3})", {"aaa"}, {"aa", "aaaa"});
  expect_language(R"(root ::= "a"{2,})", {"aa", "aaaaaaaaa"}, {"a", ""});
  expect_language(R"(root ::= "a"{0,0} "b")", {"b"}, {"ab"});
  expect_language(R"(root ::= ("a" | "bc"){2,3})", {"aa", "bcbc", "abca"}, {"a", "aaaa", "abcb"});
  expect_language("root ::= \"(\" root \")\" | \"\"", {"", "()", "((()))"}, {"(", "())"});
  expect_language("root ::= (\"a\"? \"b\"?){3}", {"", "ab", "ba", "ababab", "bbb"}, {"bbbb", "abababa"});
  expect_language("root ::= ((\"a\"*)* | \"b\"{0,3})+", {"", "aabbbaab"}, {"c"});
}

TEST(StackAutomaton, LargeCountersAreNotExpanded) {
  StackAutomaton automaton = automaton_of(R"(root ::= ([a-z] [0-9]?){1000,100000} "!")");
  EXPECT_LT(automaton.grammar().n_nodes(), 10u);
  std::string text;
  for (int i = 0; i < 999; ++i) text += "a1";
  EXPECT_FALSE(accepts(automaton, text + "!"));
  EXPECT_TRUE(accepts(automaton, text + "b!"));
}

TEST(StackAutomaton, DistinguishesCompletionsOfAPartialCharacter) {
  // é is C3 A9, ü is C3 BC; 😀 is F0 9F 98 80.
  StackAutomaton automaton = automaton_of(R"(root ::= [é] | "😀" | [😁-😃] "x")");
  EXPECT_NE(run(automaton, "\xC3"), StackAutomaton::kDead);
  EXPECT_EQ(run(automaton, "\xC3\xBC"), StackAutomaton::kDead);
  EXPECT_EQ(run(automaton, "\xC4"), StackAutomaton::kDead);
  EXPECT_NE(run(automaton, "\xF0\x9F\x98"), StackAutomaton::kDead);
  EXPECT_TRUE(accepts(automaton, "\xF0\x9F\x98\x80"));
  EXPECT_TRUE(accepts(automaton, "\xF0\x9F\x98\x82x"));
  EXPECT_EQ(run(automaton, "\xF0\x9F\x98\x84"), StackAutomaton::kDead);
  EXPECT_EQ(run(automaton, "\xF0\x9F\x99"), StackAutomaton::kDead);
}

TEST(StackAutomaton, SharedCallersKeepAmbiguousGrammarsSmall) {
  // 2^20 separate stacks at the start, and three times as many with every bracket.
  std::string text = "root ::= r0 | sum\n";
  for (int i = 0; i < 20; ++i) text += fmt::format("r{0} ::= r{1} \"a\" | r{1} \"b\"\n", i, i + 1);
  text += "r20 ::= \"x\"\nsum ::= term \"+\" sum | term \"-\" sum | term\nterm ::= \"(\" sum \")\" | [0-9]";
  StackAutomaton automaton = automaton_of(text);
  EXPECT_TRUE(accepts(automaton, "xabababababababababab"));
  EXPECT_FALSE(accepts(automaton, "xababababababababababa"));
  const std::string open(50, '('), close(50, ')');
  EXPECT_TRUE(accepts(automaton, open + "1+2" + close + "-3"));
  EXPECT_FALSE(accepts(automaton, open + "1+2" + close + ")"));
  for (size_t n = 0; n <= open.size(); ++n) {
    EXPECT_LT(automaton.frames(run(automaton, open.substr(0, n))).size(), 30u) << n;
  }
}

TEST(StackAutomaton, RefusesWhatNeedsTooMuchWork) {
  StackAutomaton automaton = automaton_of("root ::= (\"a\" | \"aa\"){0,100000}");
  EXPECT_THROW(run(automaton, std::string(90000, 'a')), Error);  // after n bytes, n / 2 counts are possible
}

TEST(StackAutomaton, RightRecursionKeepsTheStackFlat) {
  StackAutomaton automaton = automaton_of("root ::= item root | item\nitem ::= [a-z] \";\"");
  StackAutomaton::SetId state = automaton.start();
  std::set<StackAutomaton::SetId> states;
  for (int i = 0; i < 1000; ++i) {
    for (const char c : {'q', ';'}) states.insert(state = automaton.step(state, static_cast<unsigned char>(c)));
  }
  EXPECT_LE(states.size(), 4u);
  EXPECT_TRUE(automaton.is_complete(state));
}

TEST(StackAutomaton, CollectKeepsRetainedStates) {
  StackAutomaton automaton = automaton_of("root ::= \"[\" (root (\",\" root)*)? \"]\" | [a-z]{1,50}");
  const std::string prefix = "[[a,[bc,[";
  const StackAutomaton::SetId state = run(automaton, prefix);
  automaton.retain(state);
  for (int i = 0; i < 200; ++i) run(automaton, std::string(static_cast<size_t>(i), '['));
  const size_t before = automaton.bytes();
  automaton.collect();
  EXPECT_LT(automaton.bytes(), before);
  StackAutomaton::SetId after = state;
  for (const char c : std::string("x],y]]")) after = automaton.step(after, static_cast<unsigned char>(c));
  EXPECT_FALSE(automaton.is_complete(after));
  after = automaton.step(after, ']');
  EXPECT_TRUE(automaton.is_complete(after));
  EXPECT_EQ(automaton.step(after, ']'), StackAutomaton::kDead);
  after = state;
  for (const char c : std::string("x]]],y]")) after = automaton.step(after, static_cast<unsigned char>(c));
  EXPECT_TRUE(automaton.is_complete(after));
  EXPECT_EQ(run(automaton, prefix), state);  // found again, not made twice
}

void append_texts(const std::string& prefix, int length, std::vector<std::string>& out) {
  out.push_back(prefix);
  if (length == 0) return;
  for (const char* letter : {"a", "b", "é"}) append_texts(prefix + letter, length - 1, out);
}

/// Whether some text leads from the state to a complete one; searched breadth first.
bool can_end(StackAutomaton& automaton, StackAutomaton::SetId from) {
  automaton.limit_work(uint64_t{1} << 40);
  std::set<StackAutomaton::SetId> seen = {from};
  std::deque<StackAutomaton::SetId> pending = {from};
  while (!pending.empty() && seen.size() < 3000) {
    const StackAutomaton::SetId state = pending.front();
    pending.pop_front();
    if (automaton.is_complete(state)) return true;
    for (const unsigned char byte : {0x61, 0x62, 0xC3, 0xA9}) {
      const StackAutomaton::SetId next = automaton.step(state, byte);
      if (next != StackAutomaton::kDead && seen.insert(next).second) pending.push_back(next);
    }
  }
  return !pending.empty();
}

TEST(StackAutomaton, EqualsTheDefinitionOnRandomGrammars) {
  PhiloxStream random(21);
  std::vector<std::string> texts;
  append_texts("", 5, texts);
  int n_grammars = 0, n_accepted = 0;
  for (int round = 0; round < 600; ++round) {
    const std::string gbnf = RandomGrammar(random).text();
    std::shared_ptr<const Grammar> grammar;
    const Rules rules = parse_gbnf(gbnf);
    try {
      grammar = std::make_shared<Grammar>(rules);
    } catch (const Error&) {
      continue;  // left recursion, or no finite text
    }
    ++n_grammars;
    StackAutomaton automaton(grammar);
    for (const std::string& text : texts) {
      const bool expected = Oracle(rules, text).matches();
      n_accepted += expected;
      const StackAutomaton::SetId state = run(automaton, text);
      ASSERT_EQ(automaton.is_complete(state), expected) << gbnf << "text: '" << text << "'";
      if (state != StackAutomaton::kDead && text.size() < 3) {
        ASSERT_TRUE(can_end(automaton, state)) << gbnf << text;
      }
    }
  }
  EXPECT_GT(n_grammars, 150);
  EXPECT_GT(n_accepted, 5000);
}

}  // namespace
}  // namespace mneme
