// The merging encoders against the definition: look at all pairs, merge the best and leftmost, start again.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>

#include "base/error.h"
#include "base/test_data.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/spm_encoder.h"
#include "model/tokenizer/test_vocabularies.h"
#include "model/tokenizer/tokenizer.h"
#include "weights/model_file.h"

namespace mneme {
namespace {

constexpr Tokenizer::EncodeOptions kPlain{.add_special = false, .parse_special = false};

/// Merges neighbours for which `rank` gives a number, smallest first, leftmost among equals. O(n^2).
template <typename Rank>
void merge_naively(std::vector<std::string>& symbols, Rank&& rank) {
  for (;;) {
    size_t best = symbols.size();
    std::optional<double> best_rank;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const std::optional<double> r = rank(symbols[i], symbols[i + 1]);
      if (r && (!best_rank || *r < *best_rank)) {
        best = i;
        best_rank = r;
      }
    }
    if (!best_rank) return;
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
}

std::vector<std::string> characters(const std::string& text) {
  std::vector<std::string> out;
  const std::string_view view = text;
  for (size_t i = 0; i < text.size(); i += out.back().size())
    out.emplace_back(view.substr(i, decode_utf8(view.substr(i)).length));
  return out;
}

std::vector<TokenId> encode_spm_naively(const Tokenizer& t, const std::string& text) {
  std::vector<TokenId> ids;
  if (text.empty()) return ids;
  std::vector<std::string> symbols = characters(mark_spaces(text, true));
  const auto plain = [&](const std::string& piece) -> std::optional<TokenId> {
    const auto id = t.find(piece);
    if (!id || t.kind(*id) != TokenKind::kNormal) return std::nullopt;
    return id;
  };
  merge_naively(symbols, [&](const std::string& left, const std::string& right) -> std::optional<double> {
    const auto id = plain(left + right);
    if (!id) return std::nullopt;
    return -t.score(*id);
  });
  for (const std::string& symbol : symbols) {
    if (const auto id = plain(symbol)) {
      ids.push_back(*id);
    } else {
      for (const char c : symbol) ids.push_back(*t.find(byte_token_text(static_cast<unsigned char>(c))));
    }
  }
  return ids;
}

TEST(SpmEncoder, AgreesWithTheDefinitionOnARealVocabulary) {
  const auto path = shared_path("data/stories260K.gguf");
  if (!path) GTEST_SKIP() << "shared test data is missing: data/stories260K.gguf";
  const ModelFile file = open_gguf(*path);
  const auto t = Tokenizer::load(file.metadata());
  std::mt19937 random(1);
  std::vector<std::string> texts = {"Once upon a time", "", " ", "the the the", "Lily's toy; once", "aaaaaaaaaaaaaa"};
  const std::vector<std::string> words = {"once",  " upon", " the", "re", "in", " little",
                                          " girl", "ed",    " ",    ".",  "\n", "é"};
  for (int i = 0; i < 300; ++i) {
    std::string text;
    for (size_t n = random() % 30; n > 0; --n) text += words[random() % words.size()];
    texts.push_back(text);
    texts.push_back(random_text(random, random() % 50));
  }
  for (const std::string& text : texts) {
    ASSERT_EQ(t->encode(text, kPlain), encode_spm_naively(*t, text)) << text;
  }
}

TEST(BpeEncoder, AgreesWithTheDefinition) {
  std::mt19937 random(2);
  for (int round = 0; round < 40; ++round) {
    std::vector<std::string> merges, known = {"a", "b", "c", "Ġ", "'"};
    std::map<std::pair<std::string, std::string>, double> ranks;
    std::vector<std::string> made;
    for (int i = 0; i < 25; ++i) {
      const std::string left = known[random() % known.size()], right = known[random() % known.size()];
      const std::string joined = left + right;
      if (std::find(known.begin(), known.end(), joined) != known.end()) continue;
      ranks.emplace(std::make_pair(left, right), static_cast<double>(merges.size()));
      merges.push_back(left + " " + right);
      known.push_back(joined);
    }
    const Vocabulary v = byte_level_vocabulary("gpt-2", merges);
    const auto t = Tokenizer::create(v);
    for (int i = 0; i < 30; ++i) {
      std::string text;
      for (size_t n = random() % 60; n > 0; --n) text += "abc aabb'c"[random() % 10];
      std::vector<TokenId> expected;
      size_t begin = 0;
      for (const uint32_t end : split_words(text, find_pre_tokenizer("gpt-2"))) {
        std::vector<std::string> symbols = characters(bytes_to_text(text.substr(begin, end - begin)));
        begin = end;
        merge_naively(symbols, [&](const std::string& left, const std::string& right) -> std::optional<double> {
          const auto found = ranks.find({left, right});
          if (found == ranks.end()) return std::nullopt;
          return found->second;
        });
        for (const std::string& symbol : symbols) expected.push_back(*t->find(symbol));
      }
      ASSERT_EQ(t->encode(text, kPlain), expected) << text;
    }
  }
}

TEST(BpeEncoder, WholeWordsNeedNoMergesWhereTheFamilySaysSo) {
  Vocabulary v = byte_level_vocabulary("llama-bpe", {"a b"});
  add_token(v, "abba");
  const auto whole = static_cast<TokenId>(v.tokens.size() - 1);
  v.add_bos = false;
  EXPECT_EQ(Tokenizer::create(v)->encode("abba", kPlain), (std::vector<TokenId>{whole}));
  v.pre = "qwen2";
  EXPECT_EQ(Tokenizer::create(v)->encode("abba", kPlain), (std::vector<TokenId>{256, 'b', 'a'}));
}

TEST(BpeEncoder, WhatMergesToNoTokenFallsApartIntoBytes) {
  Vocabulary v = byte_level_vocabulary("gpt-2", {"Ġ a"});
  v.merges.push_back("Ġa b");  // Makes "Ġab", which is no token.
  const auto t = Tokenizer::create(v);
  EXPECT_EQ(t->encode(" ab", kPlain), (std::vector<TokenId>{' ', 'a', 'b'}));
}

TEST(BpeEncoder, BytesWithoutTokenAreLeftOut) {
  Vocabulary v;
  v.model = "gpt2";
  v.pre = "gpt-2";
  add_token(v, "a");
  const auto t = Tokenizer::create(v);
  EXPECT_EQ(t->encode("abca", kPlain), (std::vector<TokenId>{0, 0}));
}

TEST(BpeEncoder, MarkedSpacesWorkOnCharactersWithByteFallback) {
  Vocabulary v;
  v.model = "gemma4";
  add_token(v, "<bos>", TokenKind::kControl);
  for (int b = 0; b < 256; ++b) add_token(v, byte_token_text(static_cast<unsigned char>(b)), TokenKind::kByte);
  for (const char* text : {"h", "i", "▁", "▁h", "▁hi", "\n", "\n\n"}) add_token(v, text);
  v.merges = {"▁ h", "▁h i"};
  v.special.bos = 0;
  const auto t = Tokenizer::create(v);
  // The run of two line breaks is a token that no merge makes; "é" falls back to its two bytes.
  const std::vector<TokenId> expected = {0,
                                         *t->find("▁hi"),
                                         *t->find("\n\n"),
                                         *t->find("h"),
                                         *t->find("<0xC3>"),
                                         *t->find("<0xA9>"),
                                         *t->find("\n"),
                                         *t->find("▁")};
  EXPECT_EQ(t->encode(" hi\n\nhé\n "), expected);
  EXPECT_EQ(t->detokenize(expected), " hi\n\nhé\n ");
}

TEST(BpeEncoder, BadMergesAreNamed) {
  for (const char* bad : {"ab", "", " ", "a ", "a  "}) {
    Vocabulary v = byte_level_vocabulary("gpt-2", {"a b"});
    v.merges.push_back(bad);
    if (std::string_view(bad) == "a  ") {  // "a" and " ": strange, but two texts.
      EXPECT_NO_THROW(Tokenizer::create(v));
      continue;
    }
    try {
      Tokenizer::create(v);
      ADD_FAILURE() << "accepted '" << bad << "'";
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("merge 1 "), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace mneme
