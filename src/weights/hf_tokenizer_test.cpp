#include "weights/hf_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "base/error.h"
#include "base/test_data.h"
#include "weights/gguf_test_bytes.h"
#include "weights/model_file.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

Metadata import(const TestFolder& folder, uint64_t n_vocab = 0, const SortedJson& config = SortedJson::object()) {
  Metadata m("test");
  import_hf_tokenizer(folder.path().string(), config, n_vocab, m);
  return m;
}

std::string refusal(const TestFolder& folder) {
  try {
    (void)import(folder);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

SortedJson byte_level() {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}};
}

/// Five tokens and two merges, one of them in each of the two notations that exist.
SortedJson small_bpe() {
  return {{"model",
           {{"type", "BPE"}, {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}, {"abb", 3}}}, {"merges", {"a b", {"ab", "b"}}}}},
          {"pre_tokenizer", byte_level()},
          {"added_tokens",
           {{{"id", 4}, {"content", "<|end|>"}, {"special", true}},
            {{"id", 5}, {"content", "<tool>"}, {"special", false}}}}};
}

TEST(HfTokenizer, ByteLevelBpe) {
  const TestFolder folder;
  folder.write("tokenizer.json", small_bpe().dump());
  folder.write("tokenizer_config.json",
               R"({"eos_token": {"content": "<|end|>"}, "bos_token": null, "chat_template": "hello"})");
  const Metadata m = import(folder, 8);
  EXPECT_EQ(m.get_string("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(m.get_string("tokenizer.ggml.pre"), "gpt-2");
  EXPECT_THAT(*m.find_array_string("tokenizer.ggml.tokens"),
              ElementsAre("a", "b", "ab", "abb", "<|end|>", "<tool>", "[PAD6]", "[PAD7]"));
  EXPECT_THAT(*m.find_array_i32("tokenizer.ggml.token_type"), ElementsAre(1, 1, 1, 1, 3, 4, 5, 5));
  EXPECT_THAT(*m.find_array_string("tokenizer.ggml.merges"), ElementsAre("a b", "ab b"));
  EXPECT_FALSE(m.has("tokenizer.ggml.scores"));
  EXPECT_EQ(m.get_u64("tokenizer.ggml.eos_token_id"), 4u);
  EXPECT_FALSE(m.has("tokenizer.ggml.bos_token_id"));
  EXPECT_FALSE(m.get_bool("tokenizer.ggml.add_bos_token"));
  EXPECT_EQ(m.get_string("tokenizer.chat_template"), "hello");
}

/// The GPT-2 vocabulary written as tokenizer.json comes back as it was.
TEST(HfTokenizer, Gpt2Vocabulary) {
  const auto path = shared_path("data/tokenizers/ggml-vocab-gpt-2.gguf");
  if (!path) GTEST_SKIP() << "shared test data is missing";
  const ModelFile model = open_gguf(*path);
  const auto tokens = *model.metadata().find_array_string("tokenizer.ggml.tokens");
  const auto merges = *model.metadata().find_array_string("tokenizer.ggml.merges");
  const auto kinds = *model.metadata().find_array_i32("tokenizer.ggml.token_type");
  SortedJson json = {
      {"model", {{"type", "BPE"}}}, {"pre_tokenizer", byte_level()}, {"added_tokens", SortedJson::array()}};
  SortedJson vocabulary = SortedJson::object();
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (kinds[i] == 3) {
      json["added_tokens"].push_back({{"id", i}, {"content", tokens[i]}, {"special", true}});
    } else {
      vocabulary[std::string(tokens[i])] = i;
    }
  }
  json["model"]["vocab"] = std::move(vocabulary);
  for (std::string_view merge : merges) json["model"]["merges"].push_back(merge);
  const TestFolder folder;
  folder.write("tokenizer.json", json.dump());
  folder.write("tokenizer_config.json", R"({"eos_token":"<|endoftext|>","bos_token":"<|endoftext|>"})");
  const Metadata m = import(folder, tokens.size());
  EXPECT_TRUE(std::ranges::equal(*m.find_array_string("tokenizer.ggml.tokens"), tokens));
  EXPECT_TRUE(std::ranges::equal(*m.find_array_string("tokenizer.ggml.merges"), merges));
  EXPECT_EQ(*m.find_array_i32("tokenizer.ggml.token_type"), kinds);
  EXPECT_EQ(m.get_u64("tokenizer.ggml.bos_token_id"), 50256u);
}

TEST(HfTokenizer, EndsAndTemplates) {
  const TestFolder folder;
  SortedJson json = small_bpe();
  json["added_tokens"].push_back({{"id", 6}, {"content", "<|eom_id|>"}, {"special", true}});
  json["added_tokens"].push_back({{"id", 7}, {"content", "<|eot_id|>"}, {"special", true}});
  json["post_processor"] = {{"type", "Sequence"},
                            {"processors",
                             {byte_level(),
                              {{"type", "TemplateProcessing"},
                               {"single", {{{"SpecialToken", {{"id", "<|end|>"}}}}, {{"Sequence", {{"id", "A"}}}}}}}}}};
  folder.write("tokenizer.json", json.dump());
  folder.write("generation_config.json", R"({"eos_token_id": [4, 6, 7, 4, 999]})");
  folder.write("tokenizer_config.json",
               R"({"chat_template": [{"name":"default","template":"x"},{"name":"tool_use","template":"y"}]})");
  const Metadata m = import(folder);
  EXPECT_EQ(m.get_u64("tokenizer.ggml.eos_token_id"), 4u);
  EXPECT_EQ(m.get_u64("tokenizer.ggml.eom_token_id"), 6u);
  EXPECT_EQ(m.get_u64("tokenizer.ggml.eot_token_id"), 7u);
  EXPECT_TRUE(m.get_bool("tokenizer.ggml.add_bos_token"));
  EXPECT_FALSE(m.get_bool("tokenizer.ggml.add_eos_token"));
  EXPECT_EQ(m.get_string("tokenizer.chat_template"), "x");
  EXPECT_EQ(m.get_string("tokenizer.chat_template.tool_use"), "y");
  folder.write("chat_template.jinja", "from file");
  EXPECT_EQ(import(folder).get_string("tokenizer.chat_template"), "from file");
}

TEST(HfTokenizer, SplittingRulesByTheirPatterns) {
  const auto name = [](const SortedJson& pre, bool ignore_merges = false) {
    return pre_tokenizer_name({{"pre_tokenizer", pre}, {"model", {{"ignore_merges", ignore_merges}}}}, "t.json");
  };
  const auto sequence = [](const SortedJson& first, const SortedJson& second) {
    return SortedJson{{"type", "Sequence"}, {"pretokenizers", {first, second}}};
  };
  const SortedJson bytes_only = {{"type", "ByteLevel"}, {"use_regex", false}};
  const SortedJson llama3 = {{"type", "Split"}, {"pattern", {{"Regex", kLlama3Pattern}}}, {"behavior", "Isolated"}};
  const SortedJson digits = {{"type", "Digits"}, {"individual_digits", true}};
  EXPECT_EQ(name(byte_level()), "gpt-2");
  EXPECT_EQ(name(sequence(llama3, bytes_only), true), "llama-bpe");
  EXPECT_EQ(name(sequence(llama3, bytes_only), false), "dbrx");
  EXPECT_EQ(name(sequence(digits, byte_level())), "smollm");
  SortedJson qwen2 = llama3;
  qwen2["pattern"]["Regex"] = std::string(kLlama3Pattern).replace(std::string(kLlama3Pattern).find("{1,3}"), 5, "");
  EXPECT_EQ(name(sequence(qwen2, bytes_only)), "qwen2");
  SortedJson unknown = llama3;
  unknown["pattern"]["Regex"] = "[a-z]+";
  EXPECT_THROW((void)name(sequence(unknown, bytes_only)), Error);
  EXPECT_THROW((void)name(bytes_only), Error);
  EXPECT_THROW((void)name({{"type", "Whitespace"}}), Error);
  EXPECT_THROW((void)name(SortedJson()), Error);
}

TEST(HfTokenizer, SentencePieceLikeBpe) {
  const TestFolder folder;
  const SortedJson json = {
      {"model",
       {{"type", "BPE"},
        {"byte_fallback", true},
        {"unk_token", "<unk>"},
        {"vocab", {{"<unk>", 0}, {"<0x0A>", 1}, {"\u2581", 2}, {"a", 3}, {"\u2581a", 4}, {"\u2581\u2581", 5}}},
        {"merges", {"\u2581 a", "\u2581 \u2581"}}}},
      {"normalizer",
       {{"type", "Sequence"},
        {"normalizers",
         {{{"type", "Prepend"}, {"prepend", "\u2581"}},
          {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}}}}}},
      {"added_tokens",
       {{{"id", 0}, {"content", "<unk>"}, {"special", true}},
        {{"id", 6}, {"content", "\u2581\u2581\u2581"}, {"special", false}}}}};
  folder.write("tokenizer.json", json.dump());
  const Metadata m = import(folder);
  EXPECT_EQ(m.get_string("tokenizer.ggml.model"), "llama");
  EXPECT_TRUE(m.get_bool("tokenizer.ggml.add_space_prefix"));
  EXPECT_THAT(*m.find_array_i32("tokenizer.ggml.token_type"), ElementsAre(2, 6, 1, 1, 1, 1, 4));
  const auto scores = *m.find_array_f32("tokenizer.ggml.scores");
  EXPECT_EQ(scores[4], 0.0f);
  EXPECT_EQ(scores[5], -1.0f);
  EXPECT_LT(scores[3], scores[5]);
  EXPECT_EQ((*m.find_array_string("tokenizer.ggml.tokens"))[6], "   ");
  EXPECT_FALSE(m.has("tokenizer.ggml.merges"));
}

TEST(HfTokenizer, WordPieceInBothFiles) {
  const TestFolder folder;
  folder.write("vocab.txt", "[PAD]\n[unused0]\n[UNK]\nhe\n##llo\r\n!");
  const auto check = [](const Metadata& m) {
    EXPECT_EQ(m.get_string("tokenizer.ggml.model"), "bert");
    EXPECT_THAT(*m.find_array_string("tokenizer.ggml.tokens"),
                ElementsAre("[PAD]", "[unused0]", "[UNK]", "\u2581he", "llo", "\u2581!"));
    EXPECT_THAT(*m.find_array_i32("tokenizer.ggml.token_type"), ElementsAre(3, 1, 3, 1, 1, 1));
  };
  check(import(folder));
  const SortedJson json = {
      {"model",
       {{"type", "WordPiece"},
        {"vocab", {{"[PAD]", 0}, {"[unused0]", 1}, {"[UNK]", 2}, {"he", 3}, {"##llo", 4}, {"!", 5}}}}}};
  folder.write("tokenizer.json", json.dump());
  folder.write("tokenizer_config.json", R"({"pad_token":"[PAD]","unk_token":"[UNK]"})");
  const Metadata m = import(folder);
  check(m);
  EXPECT_EQ(m.get_u64("tokenizer.ggml.padding_token_id"), 0u);
  EXPECT_EQ(m.get_u64("tokenizer.ggml.unknown_token_id"), 2u);
}

TEST(HfTokenizer, BadFilesAreRefusedByName) {
  const TestFolder folder;
  const auto with = [&](const char* path, const SortedJson& value) {
    SortedJson json = small_bpe();
    json[SortedJson::json_pointer(path)] = value;
    folder.write("tokenizer.json", json.dump());
    return refusal(folder);
  };
  EXPECT_THAT(with("/model/type", "Unigram"), HasSubstr("'model.type': expected BPE or WordPiece, found 'Unigram'"));
  EXPECT_THAT(with("/model/vocab", SortedJson::array()), HasSubstr("'model.vocab'"));
  EXPECT_THAT(with("/model/vocab/ab", 1), HasSubstr("token 'b': expected an id of its own, found 1"));
  EXPECT_THAT(with("/model/vocab/ab", "x"), HasSubstr("token 'ab'"));
  EXPECT_THAT(with("/model/vocab/ab", uint64_t{1} << 40), HasSubstr("expected ids below"));
  EXPECT_THAT(with("/model/merges/0", "ab"), HasSubstr("merge 0: expected two texts"));
  EXPECT_THAT(with("/model/merges/1", {"a"}), HasSubstr("merge 1: expected two texts"));
  EXPECT_THAT(with("/added_tokens/0/id", uint64_t{1} << 63), HasSubstr("expected ids below"));
  folder.write("tokenizer.json", "{");
  EXPECT_THAT(refusal(folder), HasSubstr("tokenizer.json"));
}

TEST(HfTokenizer, NoFilesNoVocabulary) {
  const TestFolder folder;
  EXPECT_EQ(import(folder).size(), 0u);
}

}  // namespace
}  // namespace mneme
