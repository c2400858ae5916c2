#include "model/tokenizer/word_piece_encoder.h"

#include <gtest/gtest.h>

#include "model/tokenizer/test_vocabularies.h"
#include "model/tokenizer/tokenizer.h"

namespace mneme {
namespace {

using Words = std::vector<std::string>;

TEST(WordPieceWords, NormalisesLikeUncasedBert) {
  const WordPieceRules uncased;
  EXPECT_EQ(split_word_piece_words("  Führer,\tÉTÉ ", uncased), (Words{"fuhrer", ",", "ete"}));
  EXPECT_EQ(split_word_piece_words("a\u0301 \u0301", uncased), (Words{"a"}));
  EXPECT_EQ(split_word_piece_words("x中文y$z€", uncased), (Words{"x", "中", "文", "y", "$", "z€"}));
  EXPECT_EQ(split_word_piece_words(std::string_view("a\0b\x7F\uFFFD\u200D!", 11), uncased), (Words{"ab", "!"}));
  EXPECT_EQ(split_word_piece_words("a\xFF"
                                   "b",
                                   uncased),
            (Words{"ab"}));
  EXPECT_EQ(split_word_piece_words("한", uncased), (Words{"\u1112\u1161\u11AB"}));
  EXPECT_EQ(split_word_piece_words("", uncased), (Words{}));
}

TEST(WordPieceWords, KeepsCaseAndAccentsWhenAsked) {
  EXPECT_EQ(split_word_piece_words("Führer", {.lowercase = false, .strip_accents = false}), (Words{"Führer"}));
  EXPECT_EQ(split_word_piece_words("Führer", {.lowercase = true, .strip_accents = false}), (Words{"führer"}));
}

Vocabulary bert() {
  Vocabulary v;
  v.model = "bert";
  add_token(v, "[UNK]", TokenKind::kUnknown);
  add_token(v, "[CLS]", TokenKind::kControl);
  add_token(v, "[SEP]", TokenKind::kControl);
  for (const char* text : {"▁un", "aff", "able", "▁unaf", "▁!", "▁play", "ing"}) add_token(v, text);
  v.special.unk = 0;
  v.special.cls = 1;
  v.special.sep = 2;
  return v;
}

TEST(WordPiece, LongestPieceFirstOrUnknown) {
  const auto t = Tokenizer::create(bert());
  EXPECT_EQ(t->encode("Playing!"), (std::vector<TokenId>{1, 8, 9, 7, 2}));
  // "▁unaf" is longer than "▁un", and "fable" then has no piece: no way back.
  EXPECT_EQ(t->encode("unaffable playing"), (std::vector<TokenId>{1, 0, 8, 9, 2}));
  EXPECT_EQ(t->encode("", {}), (std::vector<TokenId>{1, 2}));
  EXPECT_EQ(t->encode("[CLS]", {.add_special = false}), (std::vector<TokenId>{0, 0, 0}));
  EXPECT_EQ(t->encode("[CLS]", {.add_special = false, .parse_special = true}), (std::vector<TokenId>{1}));
}

TEST(WordPiece, DecodesToTidyText) {
  const auto t = Tokenizer::create(bert());
  EXPECT_TRUE(t->cleans_spaces());
  EXPECT_EQ(t->detokenize(t->encode("Playing !  un")), "playing! un");
}

}  // namespace
}  // namespace mneme
