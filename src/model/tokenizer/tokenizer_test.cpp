#include "model/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <limits>
#include <thread>

#include "base/test_error.h"
#include "model/tokenizer/prefix_tree.h"
#include "model/tokenizer/test_vocabularies.h"
#include "weights/metadata.h"

namespace mneme {
namespace {

using testing::HasSubstr;
using Ids = std::vector<TokenId>;

constexpr Tokenizer::EncodeOptions kPlain{.add_special = false, .parse_special = false};
constexpr Tokenizer::EncodeOptions kTemplate{.add_special = false, .parse_special = true};

Vocabulary small_spm() {
  return spm_vocabulary({"▁", "h", "i", "▁h", "▁hi", "hi"});
}

TEST(PrefixTree, FindsEveryPrefix) {
  const PrefixTree tree({{"ab", 1}, {"a", 0}, {"abc\xFF", 2}, {"b", 3}});
  std::vector<std::pair<size_t, int32_t>> found;
  tree.for_each_prefix("abc\xFFz", [&](size_t length, int32_t value) { found.emplace_back(length, value); });
  EXPECT_EQ(found, (std::vector<std::pair<size_t, int32_t>>{{1, 0}, {2, 1}, {4, 2}}));
  found.clear();
  tree.for_each_prefix("cab", [&](size_t length, int32_t value) { found.emplace_back(length, value); });
  PrefixTree().for_each_prefix("a", [&](size_t length, int32_t value) { found.emplace_back(length, value); });
  EXPECT_TRUE(found.empty());
}

TEST(Tokenizer, SpmAddsPrefixAndBos) {
  const auto t = Tokenizer::create(small_spm());
  EXPECT_EQ(t->encode("hi"), (Ids{1, *t->find("▁hi")}));
  EXPECT_EQ(t->encode(""), (Ids{1}));
  EXPECT_EQ(t->encode("", kPlain), (Ids{}));
  EXPECT_EQ(t->encode("hi hi", kPlain), (Ids{*t->find("▁hi"), *t->find("▁hi")}));
  EXPECT_EQ(t->encode("\n", kPlain), (Ids{*t->find("▁"), *t->find("<0x0A>")}));
  EXPECT_EQ(t->bos(), 1);
  EXPECT_EQ(t->eos(), 2);
  EXPECT_EQ(t->unk(), 0);
}

TEST(Tokenizer, SpmPrefixFollowsEverySpecialTokenAndDecodesAway) {
  const auto t = Tokenizer::create(small_spm());
  const Ids ids = t->encode("hi</s>hi", {.add_special = true, .parse_special = true});
  EXPECT_EQ(ids, (Ids{1, *t->find("▁hi"), 2, *t->find("▁hi")}));
  EXPECT_EQ(t->detokenize(ids), "hihi");
  EXPECT_EQ(t->detokenize(ids, false, true), "<s>hi</s>hi");
  EXPECT_EQ(t->detokenize(ids, true, true), "hi</s>hi");
  Vocabulary v = small_spm();
  v.add_space_prefix = false;
  EXPECT_EQ(Tokenizer::create(v)->encode("hi", kPlain), (Ids{*t->find("hi")}));
}

TEST(Tokenizer, UserTextNeverBecomesAControlToken) {
  // Merges lead to the spelling of </s> here, and a byte token's spelling is in the text.
  Vocabulary v = spm_vocabulary({"▁", "<", "/", "s", ">", "</", "</s", "<0x41", "0", "x", "4", "1", "u", "n", "k"});
  v.add_space_prefix = false;
  const auto t = Tokenizer::create(v);
  for (const std::string text : {"</s>", "<s></s>", "<unk>", "<0x41>", "</s"}) {
    const Ids ids = t->encode(text, kPlain);
    EXPECT_EQ(t->detokenize(ids), text);
    for (const TokenId id : ids) EXPECT_EQ(t->kind(id), TokenKind::kNormal) << text;
  }
  EXPECT_EQ(t->encode("</s>", kTemplate), (Ids{2}));
}

TEST(Tokenizer, SegmentsAreJoinedButOnlyTheTemplateMakesControlTokens) {
  Vocabulary v = byte_level_vocabulary("gpt-2", {"Ċ Ċ", "a b"});
  const auto t = Tokenizer::create(v);
  const TokenId end = *t->find("<|end|>");
  const std::vector<PromptSegment> forged = {{"<|end|>a", true}, {"b<|end|>", false}, {"<|e", true}, {"nd|>", true}};
  Ids expected = {end, *t->find("ab")};
  for (const char c : std::string_view("<|end|>")) expected.push_back(c);
  expected.push_back(end);
  EXPECT_EQ(t->encode_segments(forged, false), expected);
  // The border is none for words and merges.
  const std::vector<PromptSegment> breaks = {{"\n", true}, {"\nab", false}};
  EXPECT_EQ(t->encode_segments(breaks, false), t->encode("\n\nab", kPlain));
  // A control token must not be completed by a user.
  const std::vector<PromptSegment> completed = {{"<|en", true}, {"d|>", false}};
  EXPECT_EQ(t->encode_segments(completed, false), t->encode("<|end|>", kPlain));
  EXPECT_TRUE(t->encode_segments({}, false).empty());
}

TEST(Tokenizer, AddsWhatTheFileSays) {
  Vocabulary v = small_spm();
  v.add_eos = true;
  v.add_bos = false;
  const auto t = Tokenizer::create(v);
  EXPECT_EQ(t->encode("hi"), (Ids{*t->find("▁hi"), 2}));
  EXPECT_FALSE(t->adds_bos());
  v = byte_level_vocabulary("llama-bpe", {});
  EXPECT_FALSE(Tokenizer::create(v)->adds_bos());  // It would, but there is no BOS token.
  v.special.bos = 7;
  EXPECT_EQ(Tokenizer::create(v)->encode("a"), (Ids{7, 'a'}));
  v = byte_level_vocabulary("roberta-bpe", {});
  v.special.sep = 3;
  EXPECT_EQ(Tokenizer::create(v)->encode("a"), (Ids{'a', 3}));
  v.add_bos = true;
  EXPECT_THAT(error_of([&] { Tokenizer::create(v); }), HasSubstr("add_bos_token"));
}

TEST(Tokenizer, EndOfGenerationIsTheUnionOfRolesAndTexts) {
  Vocabulary v = byte_level_vocabulary("gpt-2", {});
  for (const char* text : {"<|im_end|>", "<|endoftext|>", "<|fim_pad|>", "<|fim_prefix|>", "word"}) add_token(v, text);
  v.special.eos = 'x';
  const auto t = Tokenizer::create(v);
  const Ids expected = {'x', *t->find("<|end|>"), *t->find("<|im_end|>"), *t->find("<|endoftext|>"),
                        *t->find("<|fim_pad|>")};
  EXPECT_EQ(Ids(t->end_of_generation_tokens().begin(), t->end_of_generation_tokens().end()), expected);
  EXPECT_TRUE(t->is_end_of_generation('x'));
  EXPECT_FALSE(t->is_end_of_generation('y'));
  EXPECT_FALSE(t->is_end_of_generation(-1));
  EXPECT_EQ(t->kind(*t->find("<|im_end|>")), TokenKind::kControl);
  EXPECT_EQ(t->eot(), t->find("<|im_end|>"));
  EXPECT_EQ(t->special().fim_prefix, t->find("<|fim_prefix|>"));
  EXPECT_EQ(t->encode("<|im_end|>", kPlain).size(), 10u);
}

TEST(Tokenizer, ChannelMarkersAreShownButNotEndings) {
  Vocabulary v = byte_level_vocabulary("gpt-4o", {});
  for (const char* text : {"<|return|>", "<|call|>", "<|channel|>"}) add_token(v, text, TokenKind::kControl);
  const auto t = Tokenizer::create(v);
  EXPECT_FALSE(t->is_end_of_generation(*t->find("<|end|>")));
  EXPECT_TRUE(t->is_end_of_generation(*t->find("<|call|>")));
  EXPECT_EQ(t->piece(*t->find("<|channel|>")), "<|channel|>");
  EXPECT_EQ(t->piece(*t->find("<|return|>")), "");
  EXPECT_GT(t->encode("<|channel|>", kPlain).size(), 1u);
}

TEST(Tokenizer, PiecesAreBytes) {
  const auto t = Tokenizer::create(byte_level_vocabulary("gpt-2", {"Ġ a"}));
  EXPECT_EQ(t->piece(0xFF), "\xFF");
  EXPECT_EQ(t->piece(256), " a");
  EXPECT_EQ(t->text(256), "Ġa");
  EXPECT_EQ(t->piece(257), "");
  EXPECT_EQ(t->piece(257, true), "<|end|>");
  EXPECT_EQ(t->detokenize(Ids{256, 257, 'b'}), " ab");
  for (const TokenId bad : {-1, 258, 1 << 30}) {
    EXPECT_THAT(error_of([&] { (void)t->piece(bad); }), HasSubstr("outside the vocabulary of 258 tokens"));
    EXPECT_THAT(error_of([&] { (void)t->detokenize(Ids{bad}); }), HasSubstr(std::to_string(bad)));
    EXPECT_THROW((void)t->kind(bad), Error);
    EXPECT_THROW((void)t->text(bad), Error);
    EXPECT_THROW((void)t->score(bad), Error);
  }
}

TEST(Tokenizer, ManyThreadsMayUseOne) {
  const auto t = Tokenizer::create(byte_level_vocabulary("llama-bpe", {"a b", "ab a", "Ġ a"}));
  const std::string text = "aba ab <|end|> né aab abba";
  const Ids expected = t->encode(text, kTemplate);
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 50; ++k) {
        if (t->encode(text, kTemplate) != expected || t->detokenize(expected, false, true) != text) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Tokenizer, CleanSpaces) {
  EXPECT_EQ(clean_spaces("Hi , you ! It 's what we 've , I 'm ' x ' they 're , don 't he 'd they 'll"),
            "Hi, you! It's what we've, I'm'x'they're, don 't he 'd they 'll");
  EXPECT_EQ(clean_spaces(""), "");
  EXPECT_EQ(clean_spaces(" ."), ".");
  EXPECT_EQ(clean_spaces("a  ? '"), "a ? '");
}

TEST(StreamingDetokenizer, GivesCompleteCharactersAndTheSameText) {
  const auto t = Tokenizer::create(byte_level_vocabulary("gpt-2", {}));
  const std::string text = "né €😀!";
  const Ids ids = t->encode(text, kPlain);
  ASSERT_EQ(ids.size(), text.size());
  StreamingDetokenizer stream(*t);
  std::string out;
  for (const TokenId id : ids) {
    const std::string part = stream.push(id);
    EXPECT_TRUE(is_valid_utf8(part));
    out += part;
  }
  EXPECT_EQ(out + stream.finish(), text);
  StreamingDetokenizer cut(*t);
  EXPECT_EQ(cut.push(0xE2), "");
  EXPECT_EQ(cut.finish(), "\uFFFD");
  EXPECT_THROW(cut.push(100000), Error);
}

TEST(StreamingDetokenizer, DropsTheSpaceThatEncodingAdded) {
  const auto t = Tokenizer::create(small_spm());
  const TokenId hi = *t->find("▁hi");
  StreamingDetokenizer start(*t);
  EXPECT_EQ(start.push(1), "");
  EXPECT_EQ(start.push(hi), "hi");
  EXPECT_EQ(start.push(hi), " hi");
  StreamingDetokenizer behind_control(*t, 1);
  EXPECT_EQ(behind_control.push(hi), "hi");
  StreamingDetokenizer behind_text(*t, hi);
  EXPECT_EQ(behind_text.push(hi), " hi");
  EXPECT_EQ(behind_text.push(2), "");
  EXPECT_EQ(behind_text.push(hi), "hi");
}

TEST(Vocabulary, BadOnesAreNamed) {
  const auto create = [](const std::function<void(Vocabulary&)>& spoil) {
    Vocabulary v = small_spm();
    spoil(v);
    return error_of([&] { Tokenizer::create(v); });
  };
  EXPECT_THAT(create([](Vocabulary& v) {
                v.tokens.push_back("h");
                v.kinds.clear();
                v.scores.clear();
              }),
              HasSubstr("same text"));
  EXPECT_THAT(create([](Vocabulary& v) { v.scores.pop_back(); }), HasSubstr("scores"));
  EXPECT_THAT(create([](Vocabulary& v) { v.kinds.pop_back(); }), HasSubstr("types"));
  EXPECT_THAT(create([](Vocabulary& v) { v.scores[5] = std::numeric_limits<float>::quiet_NaN(); }),
              HasSubstr("token 5"));
  EXPECT_THAT(create([](Vocabulary& v) { v.tokens[4] = "<0xGG>"; }), HasSubstr("byte token 4"));
  EXPECT_THAT(create([](Vocabulary& v) { v.model = "what\n"; }), HasSubstr("what\\n"));
  EXPECT_THAT(create([](Vocabulary& v) { v.special.bos = 100000; }), HasSubstr("100000"));
  EXPECT_THAT(create([](Vocabulary& v) {
                v = Vocabulary{};
                v.model = "llama";
              }),
              HasSubstr("tokens"));
}

TEST(Vocabulary, EmptyTextsGetANameAndUnknownBytesTheUnknownToken) {
  Vocabulary v;
  v.model = "llama";
  for (const char* text : {"<unk>", "", "a", ""}) add_token(v, text);
  v.add_bos = false;
  v.add_space_prefix = false;
  const auto t = Tokenizer::create(v);
  EXPECT_EQ(t->text(1), "[EMPTY_1]");
  EXPECT_EQ(t->encode("aé"), (Ids{2, 0, 0}));
}

Metadata metadata_of_small_spm() {
  const Vocabulary v = small_spm();
  Metadata m("test.gguf");
  m.set_string("tokenizer.ggml.model", v.model);
  m.set_array_string("tokenizer.ggml.tokens", v.tokens);
  m.set_array_f32("tokenizer.ggml.scores", v.scores);
  std::vector<int32_t> kinds;
  for (const TokenKind kind : v.kinds) kinds.push_back(static_cast<int32_t>(kind));
  m.set_array_i32("tokenizer.ggml.token_type", kinds);
  return m;
}

TEST(Vocabulary, IsReadFromMetadata) {
  Metadata m = metadata_of_small_spm();
  m.set_u32("tokenizer.ggml.eos_token_id", 260);
  m.set_u32("tokenizer.ggml.bos_token_id", 4'000'000'000);  // Ignored with a warning.
  m.set_u32("tokenizer.ggml.prefix_token_id", 5);
  m.set_u32("tokenizer.ggml.fim_pre_token_id", 6);
  m.set_bool("tokenizer.ggml.add_space_prefix", false);
  m.set_bool("tokenizer.ggml.add_eos_token", true);
  const auto t = Tokenizer::load(m);
  EXPECT_EQ(t->eos(), 260);
  EXPECT_EQ(t->bos(), 1);
  EXPECT_EQ(t->special().fim_prefix, 6);
  EXPECT_EQ(t->encode("hi"), (Ids{1, *t->find("hi"), 260}));
  EXPECT_EQ(t->vocab_size(), 265u);
  EXPECT_EQ(t->model(), "llama");
}

TEST(Vocabulary, BadMetadataIsNamed) {
  const auto load = [](const std::function<void(Metadata&)>& spoil) {
    Metadata m = metadata_of_small_spm();
    spoil(m);
    return error_of([&] { Tokenizer::load(m); });
  };
  EXPECT_THAT(load([](Metadata& m) { m.erase("tokenizer.ggml.model"); }), HasSubstr("tokenizer.ggml.model"));
  EXPECT_THAT(load([](Metadata& m) { m.set_string("tokenizer.ggml.model", "no_vocab"); }), HasSubstr("no_vocab"));
  EXPECT_THAT(load([](Metadata& m) { m.erase("tokenizer.ggml.tokens"); }), HasSubstr("tokenizer.ggml.tokens"));
  EXPECT_THAT(load([](Metadata& m) { m.set_u32("tokenizer.ggml.tokens", 3); }), HasSubstr("tokenizer.ggml.tokens"));
  EXPECT_THAT(load([](Metadata& m) {
                m.set_array_f32("tokenizer.ggml.scores", std::vector<float>{1, 2});
              }),
              HasSubstr("tokenizer.ggml.scores"));
  EXPECT_THAT(load([](Metadata& m) { m.set_array_i32("tokenizer.ggml.token_type", std::vector<int32_t>(265, 9)); }),
              HasSubstr("tokenizer.ggml.token_type"));
  EXPECT_THAT(load([](Metadata& m) { m.set_string("tokenizer.ggml.eos_token_id", "x"); }), HasSubstr("eos_token_id"));
}

}  // namespace
}  // namespace mneme
