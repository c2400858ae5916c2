#include "model/tokenizer/special_partition.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

#include "model/tokenizer/test_vocabularies.h"

namespace mneme {
namespace {

Vocabulary vocabulary(const std::vector<std::pair<std::string, TokenKind>>& tokens) {
  Vocabulary v;
  for (const auto& [text, kind] : tokens) add_token(v, text, kind);
  return v;
}

/// Fragments as text, tokens in brackets: "a[3]b".
std::string show(const std::vector<Fragment>& fragments, const std::string& text) {
  std::string out;
  for (const Fragment& f : fragments) {
    if (f.token >= 0) {
      out.append("[").append(std::to_string(f.token)).append("]");
    } else {
      out.append(out.empty() || out.back() == ']' ? "" : "|").append(text, f.range.begin, f.range.end - f.range.begin);
    }
  }
  return out;
}

std::string split(const SpecialPartition& partition, const std::string& text, bool trusted) {
  const TextRange all{0, text.size()};
  return show(partition.split(text, {&all, trusted ? size_t{1} : size_t{0}}), text);
}

/// The definition: for each special, longest first, cut every raw part at each occurrence from the left.
std::vector<Fragment> split_naively(const TokenTable& table, const std::string& text, bool trusted) {
  std::vector<TokenId> order;
  for (size_t i = 0; i < table.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const TokenKind kind = table.kind(id);
    if (kind == TokenKind::kUserDefined || (trusted && kind == TokenKind::kControl)) order.push_back(id);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](TokenId a, TokenId b) { return table.text(a).size() > table.text(b).size(); });
  std::vector<Fragment> fragments;
  if (!text.empty()) fragments.push_back({-1, {0, text.size()}});
  for (const TokenId id : order) {
    std::vector<Fragment> next;
    const std::string_view wanted = table.text(id);
    for (const Fragment& f : fragments) {
      if (f.token >= 0) {
        next.push_back(f);
        continue;
      }
      size_t at = f.range.begin;
      for (size_t found;
           (found = text.find(wanted, at)) + wanted.size() <= f.range.end && found != std::string::npos;) {
        if (found > at) next.push_back({-1, {at, found}});
        next.push_back({id, {found, found + wanted.size()}});
        at = found + wanted.size();
      }
      if (at < f.range.end) next.push_back({-1, {at, f.range.end}});
    }
    fragments = std::move(next);
  }
  return fragments;
}

TEST(SpecialPartition, LongestGoesFirstOverTheWholeText) {
  const TokenTable table(vocabulary({{"ab", TokenKind::kControl},
                                     {"bcd", TokenKind::kControl},
                                     {"a", TokenKind::kUserDefined},
                                     {"normal", TokenKind::kNormal}}));
  const SpecialPartition partition(table, "", "");
  EXPECT_EQ(split(partition, "abcd", true), "[2][1]");  // Not "ab", which is further left.
  EXPECT_EQ(split(partition, "xabynormal", true), "x[0]ynorm[2]l");
  EXPECT_EQ(split(partition, "xabynormal", false), "x[2]bynorm[2]l");
  EXPECT_EQ(split(partition, "", true), "");
}

TEST(SpecialPartition, AgreesWithTheDefinitionOnRandomTexts) {
  std::mt19937 random(3);
  const auto word = [&](size_t most) {
    std::string w;
    for (size_t n = 1 + random() % most; n > 0; --n) w += static_cast<char>('a' + random() % 3);
    return w;
  };
  for (int round = 0; round < 300; ++round) {
    std::vector<std::pair<std::string, TokenKind>> tokens;
    for (size_t n = random() % 8; n > 0; --n) {
      const std::string w = word(5);
      const bool known = std::any_of(tokens.begin(), tokens.end(), [&](const auto& t) { return t.first == w; });
      if (!known) tokens.emplace_back(w, random() % 2 == 0 ? TokenKind::kControl : TokenKind::kUserDefined);
    }
    tokens.emplace_back("normal", TokenKind::kNormal);
    const TokenTable table(vocabulary(tokens));
    const SpecialPartition partition(table, "", "");
    for (int i = 0; i < 10; ++i) {
      const std::string text = word(40);
      for (const bool trusted : {true, false}) {
        ASSERT_EQ(split(partition, text, trusted), show(split_naively(table, text, trusted), text)) << text;
      }
    }
  }
}

TEST(SpecialPartition, ControlTokensOnlyInsideOneTrustedRange) {
  const TokenTable table(vocabulary({{"<s>", TokenKind::kControl}, {"<u>", TokenKind::kUserDefined}}));
  const SpecialPartition partition(table, "", "");
  const std::string text = "<s><s><u><s>";
  const std::vector<TextRange> trusted = {{0, 3}, {4, 6}, {6, 12}};
  EXPECT_EQ(show(partition.split(text, trusted), text), "[0]<s>[1][0]");
}

TEST(SpecialPartition, FamiliesThatSwallowWhiteSpace) {
  const TokenTable table(vocabulary({{"<|user|>", TokenKind::kControl}, {"<s>", TokenKind::kControl}}));
  const SpecialPartition phi3(table, "Phi-3 mini", "default");
  EXPECT_EQ(split(phi3, "<s> \n<|user|>\n hi", true), "[1] \n[0]hi");
  const TokenTable with_mask(vocabulary({{"<mask>", TokenKind::kControl}}));
  const SpecialPartition jina(with_mask, "", "jina-v2-code");
  EXPECT_EQ(split(jina, "a \t<mask> b", true), "a[0] b");
  EXPECT_EQ(split(jina, " <mask>", true), "[0]");
}

/// A tree walk a byte, whatever the text: a megabyte of the worst kind is fast.
TEST(SpecialPartition, RunsOfNestedTokens) {
  std::vector<std::pair<std::string, TokenKind>> tokens;
  for (size_t n = 2; n <= 24; ++n) tokens.emplace_back(std::string(n, ' '), TokenKind::kUserDefined);
  const TokenTable table(vocabulary(tokens));
  const SpecialPartition partition(table, "", "");
  const std::string text(size_t{1} << 20, ' ');
  const auto fragments = partition.split(text, {});
  EXPECT_EQ(fragments.size(), text.size() / 24 + 1);
  EXPECT_EQ(table.text(fragments.back().token).size(), text.size() % 24);
}

}  // namespace
}  // namespace mneme
