#include "engine/grammar/gbnf.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/grammar/grammar.h"

namespace mneme {
namespace {

/// Message of the error that parsing and compiling gives; empty when there is none.
std::string error_of(std::string_view text) {
  try {
    Grammar grammar(text);
    return {};
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(std::string_view(e.what()).find('\n'), std::string_view::npos);
    EXPECT_LT(std::string_view(e.what()).size(), 400u);
    return e.what();
  }
}

void expect_error(std::string_view text, std::string_view part) {
  const std::string message = error_of(text);
  EXPECT_NE(message.find(part), std::string::npos) << "'" << message << "' for " << text;
}

TEST(Gbnf, AcceptsEveryElement) {
  for (const char* text : {
           R"(root ::= "a")",
           "root ::= \"a\" # comment\n# another\n\n",
           "root ::=\n  \"a\" |\n  \"b\"\nother ::= root",
           "root ::= (\n \"a\"\n | \"b\"\n)*",
           R"(root ::= [a-z] [^\]\\-] [-a] [a-] [\x41-\u0042\U00000043] .)",
           R"(root ::= "\"\\\n\r\t\x41\u00e9\U0001F600")",
           R"(root ::= a-1? B2* c+ d{3} e{2,} f{0,4} { 1 , 2 })"
           "\na-1 ::= \"x\"\nB2 ::= \"x\"\nc ::= \"x\"\nd ::= \"x\"\ne ::= \"x\"\nf ::= \"x\"",
           "root ::= | \"a\"",
           "root ::= \"\"",
           "root ::= ()",
           "\r\nroot ::= \"a\"\r\n",
           "root ::= \"x\" root | \"y\"",
           "root ::= \"a\"{1000000}",
           "root ::= \"é\" [а-я] [^😀]",
           "root ::= (\"a\"*)* ((\"\")+)?",
       }) {
    EXPECT_EQ(error_of(text), "") << text;
  }
}

TEST(Gbnf, ErrorsSayWhatAndWhere) {
  expect_error("", "expected a rule named 'root', found none");
  expect_error("a ::= \"x\"", "expected a rule named 'root'");
  expect_error("root ::= a\na ::= b", "a rule named 'b', found no definition, in line 2, column 7");
  expect_error("root ::= \"a\"\nroot ::= \"b\"", "a second definition of 'root', in line 2, column 1");
  expect_error("root ::= \"abc", "unterminated literal, in line 1, column 10");
  expect_error("root ::= \"abc\n\"", "unterminated literal");
  expect_error("root ::= [a-z", "unterminated class");
  expect_error("root ::= []", "a class with characters, found an empty one");
  expect_error("root ::= [^\\U00000000-\\U0010FFFF]", "found an empty one");
  expect_error("root ::= [z-a]", "a range that rises");
  expect_error("root ::= (\"a\"", "')' for this '('");
  expect_error("root ::= \"a\")", "an element or the end of the rule, found ')'");
  expect_error("root ::= (\"a\"]", "an element or ')', found ']'");
  expect_error("root ::= *", "an element before the repetition");
  expect_error("root ::= \"a\"{2,1}", "{m,n} with m <= n, found {2,1}");
  expect_error("root ::= \"a\"{,2}", "a number of repetitions");
  expect_error("root ::= \"a\"{1000001}", "at most 1000000 repetitions");
  expect_error("root ::= \"a\"{99999999999999999999}", "at most 1000000 repetitions");
  expect_error("root ::= \"a\"{2", "'}', found the end");
  expect_error("root ::= \"a\"*****", "too many repetitions in a row");
  expect_error("root = \"a\"", "'::=', found '='");
  expect_error("root ::= \"a\"\n| \"b\"", "the name of a rule, found '|', in line 2, column 1");
  expect_error("root ::= \"\\q\"", "an escape of");
  expect_error("root ::= \"\\x4\"", "2 hexadecimal digits, found '\"'");
  expect_error("root ::= \"\\uD800\"", "a code point that UTF-8 can carry, found U+D800");
  expect_error("root ::= \"\\U00110000\"", "found U+110000");
  expect_error("root ::= \"\xFF\"", "UTF-8, found a byte that is not UTF-8");
  expect_error("root ::= \"é\" ?? !", "found '!', in line 1, column 17");
  expect_error("root ::= \"a\" \x01", "found U+0001");
  expect_error("root ::= " + std::string(200, '(') + std::string(200, ')'), "at most 128 nested groups");
  expect_error("root ::= " + std::string(100, '(') + "\"a\"" + std::string(99, ')'), "')' for this '('");
  expect_error("root ::= " + std::string(99, '(') + "\"a\"" + std::string(100, ')'), "found ')'");
  expect_error("root ::= \"a\"{1,1000001}", "at most 1000000 repetitions");
  expect_error("root ::= (\"a\"{2}{3}{4}{5}{6})", "too many repetitions in a row");
  expect_error(std::string(GbnfLimits::kTextBytes + 1, ' '), "expected at most");
  const std::string name(100000, 'n');
  expect_error("root ::= " + name, "a rule named 'nnnnn");
  expect_error("root ::= \"\"\n" + name + " ::= \"\"\n" + name + " ::= \"\"", "a second definition of 'nnnnn");
  expect_error("root ::= \"\"\n" + name + " ::= " + name + "0\n" + name + "0 ::= " + name, "left recursion");
}

TEST(Gbnf, FindsLeftRecursion) {
  expect_error("root ::= root \"a\" | \"b\"", "root -> root");
  expect_error("root ::= a\na ::= b \"x\" | \"y\"\nb ::= \"z\" | a", "a -> b -> a");
  expect_error("root ::= e root \"a\" | \"b\"\ne ::= \"\" | \"x\"", "root -> root");
  expect_error("root ::= \"x\"* root \"a\" | \"b\"", "root -> root");
  expect_error("root ::= (\"x\"? root){0,3} \"a\"", "root -> root");
  EXPECT_EQ(error_of("root ::= e root \"a\" | \"b\"\ne ::= \"z\" | \"x\""), "");
  std::string chain = "root ::= r1\n";
  for (int i = 1; i < 20000; ++i) chain += fmt::format("r{} ::= r{}\n", i, i + 1);
  EXPECT_EQ(error_of(chain + "r20000 ::= \"a\" root"),
            "[compile grammar] expected a root that can end, found that 'root' "
            "matches no finite text");
  EXPECT_EQ(error_of(chain + "r20000 ::= \"a\" root | \"b\""), "");
  expect_error(chain + "r20000 ::= root \"a\" | \"b\"", "left recursion");
}

TEST(Gbnf, FindsRootsWithoutEnd) {
  expect_error("root ::= \"a\" root", "matches no finite text");
  expect_error("root ::= \"a\" b\nb ::= \"x\" c\nc ::= \"y\" b", "matches no finite text");
  EXPECT_EQ(error_of("root ::= \"a\" | \"b\" c\nc ::= \"c\" c"), "");  // the second way is left out
}

TEST(Gbnf, WritesLiteralsAndClasses) {
  EXPECT_EQ(gbnf_literal("a\"b\\c\nd[-]^\x01\x7F"
                         "é"),
            "\"a\\\"b\\\\c\\nd[-]^\\x01\\x7Fé\"");
  EXPECT_EQ(gbnf_class(CharSet({{'a', 'c'}, {'-', '-'}, {'x', 'y'}, {0xE9, 0xE9}, {0x1F600, 0x1F610}})),
            "[\\-a-cxy\\u00E9\\U0001F600-\\U0001F610]");
  const CharSet set({{0, 0x20}, {'^', '^'}, {0x2000, 0xE010}});
  const Rules rules = parse_gbnf("root ::= " + gbnf_class(set));
  EXPECT_EQ(rules.bodies[0].parts[0].characters, set);
}

TEST(CharSet, Algebra) {
  const CharSet a({{5, 9}, {1, 3}, {4, 4}});
  EXPECT_EQ(a, CharSet({{1, 9}}));
  EXPECT_EQ(a.complement().complement(), a);
  EXPECT_EQ(CharSet::all().complement(), CharSet());
  EXPECT_EQ(CharSet().complement(), CharSet::all());
  EXPECT_FALSE(CharSet::all().contains(0xD800));
  EXPECT_TRUE(CharSet::all().contains(0x10FFFF));
  EXPECT_EQ(a.intersection(CharSet({{8, 20}, {2, 2}})), CharSet({{2, 2}, {8, 9}}));
  EXPECT_EQ(a.united(CharSet({{10, 12}})), CharSet({{1, 12}}));
  EXPECT_FALSE(a.contains(0));
  EXPECT_FALSE(a.contains(10));
}

}  // namespace
}  // namespace mneme
