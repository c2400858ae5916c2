#include "model/tokenizer/unigram_encoder.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "model/tokenizer/test_vocabularies.h"
#include "model/tokenizer/tokenizer.h"

namespace mneme {
namespace {

Vocabulary t5(bool prefix) {
  Vocabulary v;
  v.model = "t5";
  add_token(v, "<pad>", TokenKind::kControl);
  add_token(v, "</s>", TokenKind::kControl);
  add_token(v, "<unk>", TokenKind::kUnknown);
  add_token(v, "▁", TokenKind::kNormal, -3);
  add_token(v, "a", TokenKind::kNormal, -2);
  add_token(v, "b", TokenKind::kNormal, -2);
  add_token(v, "ab", TokenKind::kNormal, -3);
  add_token(v, "▁a", TokenKind::kNormal, -3.5f);
  add_token(v, "bab", TokenKind::kNormal, -20);
  add_token(v, "tag", TokenKind::kUserDefined, -50);
  v.add_space_prefix = prefix;
  return v;
}

TEST(Unigram, TakesTheBestSumOfScores) {
  const auto t = Tokenizer::create(t5(false));
  const Tokenizer::EncodeOptions plain{.add_special = false};
  EXPECT_EQ(t->encode("bab", plain), (std::vector<TokenId>{5, 6}));  // -5 beats -6 and -20.
  EXPECT_EQ(t->encode("a a", plain), (std::vector<TokenId>{4, 7}));
  EXPECT_EQ(t->encode("a", {}), (std::vector<TokenId>{4, 1}));
  EXPECT_EQ(t->encode("", {}), (std::vector<TokenId>{1}));
}

TEST(Unigram, NeighbouringUnknownCharactersAreOneToken) {
  const auto t = Tokenizer::create(t5(false));
  EXPECT_EQ(t->encode("aéxa\xFFz", {.add_special = false}), (std::vector<TokenId>{4, 2, 4, 2}));
  EXPECT_EQ(t->encode("atagtag", {.add_special = false}), (std::vector<TokenId>{4, 9, 9}));
}

TEST(Unigram, SpacePrefixComesAndGoes) {
  const auto t = Tokenizer::create(t5(true));
  const auto ids = t->encode("ab a");
  EXPECT_EQ(ids, (std::vector<TokenId>{7, 5, 7, 1}));
  EXPECT_EQ(t->detokenize(ids), "ab a");
}

/// A blob whose double array maps "A" to "bb": root base 1, so node 1 ^ 'A'.
std::string blob_for_a(uint32_t value, std::string replacements) {
  std::vector<uint32_t> entries(256, 0);
  const auto entry = [](uint32_t base, bool leaf, uint32_t label) { return base << 10 | uint32_t{leaf} << 8 | label; };
  entries[0] = entry(1, false, 0);
  const size_t node = 1 ^ 'A';
  entries[node] = entry(static_cast<uint32_t>(node ^ 200), true, 'A');  // base(node) ^ node = 200
  entries[200] = value | 0x80000000u;
  std::string blob(4 + entries.size() * 4, '\0');
  const auto bytes = static_cast<uint32_t>(entries.size() * 4);
  std::memcpy(blob.data(), &bytes, 4);
  std::memcpy(blob.data() + 4, entries.data(), bytes);
  return blob + replacements;
}

TEST(Charsmap, ReplacesTheLongestMatch) {
  const Charsmap map(blob_for_a(2, std::string("x\0bb\0", 5)));
  std::string out;
  map.normalize("cAAd\xFF", out);
  EXPECT_EQ(out, "cbbbbd\uFFFD");
}

TEST(Charsmap, LyingBlobsAreErrors) {
  const std::string good = blob_for_a(2, std::string("x\0bb\0", 5));
  for (const std::string& blob : {std::string("ab"), std::string(4, '\0'), good.substr(0, good.size() - 6), good + "x",
                                  std::string("\xFF\xFF\xFF\xFF", 4) + good}) {
    EXPECT_THROW(Charsmap{blob}, Error);
  }
  std::string out;
  EXPECT_THROW(Charsmap(blob_for_a(5, std::string("x\0bb\0", 5))).normalize("A", out), Error);
  // Children of node 0 lie outside an array of one entry.
  std::string tiny(8, '\0');
  tiny[0] = 4;
  tiny[6] = 1;
  EXPECT_THROW(Charsmap(tiny + std::string("x\0", 2)).normalize("A", out), Error);
  // One letter becomes a megabyte: no normaliser does that.
  EXPECT_THROW(Charsmap(blob_for_a(0, std::string(1 << 20, 'y') + '\0')).normalize("A", out), Error);
}

}  // namespace
}  // namespace mneme
