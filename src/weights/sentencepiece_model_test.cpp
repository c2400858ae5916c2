#include "weights/sentencepiece_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/json.h"
#include "weights/gguf_test_bytes.h"
#include "weights/hf_tokenizer.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;

/// Trains a small model with the library and returns its path.
std::string train(const TestFolder& folder, const std::string& type, const std::string& more = "") {
  std::string text;
  for (int i = 0; i < 200; ++i) text += fmt::format("the cat {} sat on the mat, the other cat ate {} mice\n", i, i * 7);
  const std::string input = folder.write("text.txt", text);
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      fmt::format("--input={} --model_prefix={} --vocab_size=320 --model_type={} --byte_fallback=true "
                  "--user_defined_symbols=<tool> --hard_vocab_limit=false --minloglevel=2 {}",
                  input, folder.file("tokenizer"), type, more));
  EXPECT_TRUE(status.ok()) << status.ToString();
  return folder.file("tokenizer.model");
}

TEST(SentencePieceModel, ReadsWhatTheLibraryReads) {
  for (const std::string type : {"bpe", "unigram"}) {
    const TestFolder folder;
    const std::string path = train(folder, type);
    sentencepiece::SentencePieceProcessor library;
    ASSERT_TRUE(library.Load(path).ok());
    const std::string bytes = read_text_file(path);
    const SentencePieceModel model = parse_sentencepiece_model(bytes, path);
    EXPECT_EQ(model.is_unigram, type == "unigram");
    EXPECT_TRUE(model.add_dummy_prefix);
    EXPECT_TRUE(model.remove_extra_whitespaces);
    EXPECT_FALSE(model.precompiled_charsmap.empty());
    ASSERT_EQ(model.pieces.size(), static_cast<size_t>(library.GetPieceSize()));
    for (size_t i = 0; i < model.pieces.size(); ++i) {
      const int id = static_cast<int>(i);
      EXPECT_EQ(model.pieces[i].text, library.IdToPiece(id));
      EXPECT_EQ(model.pieces[i].score, library.GetScore(id));
      EXPECT_EQ(model.pieces[i].kind == 2, library.IsUnknown(id));
      EXPECT_EQ(model.pieces[i].kind == 3, library.IsControl(id));
      EXPECT_EQ(model.pieces[i].kind == 6, library.IsByte(id));
      EXPECT_EQ(model.pieces[i].kind == 4, model.pieces[i].text == "<tool>");
    }
  }
}

TEST(SentencePieceModel, BecomesTokenizerKeys) {
  const TestFolder folder;
  train(folder, "bpe", "--add_dummy_prefix=false");
  folder.write("added_tokens.json", R"({"<extra>": 330})");
  folder.write("tokenizer_config.json", R"({"bos_token":"<s>","eos_token":"</s>","add_bos_token":true})");
  Metadata m("test");
  import_hf_tokenizer(folder.path().string(), Json::object(), 332, m);
  EXPECT_EQ(m.get_string("tokenizer.ggml.model"), "llama");
  EXPECT_FALSE(m.get_bool("tokenizer.ggml.add_space_prefix"));
  EXPECT_TRUE(m.get_bool("tokenizer.ggml.add_bos_token"));
  EXPECT_EQ(m.get_u64("tokenizer.ggml.bos_token_id"), 1u);
  const auto tokens = *m.find_array_string("tokenizer.ggml.tokens");
  EXPECT_EQ(tokens.size(), 332u);
  EXPECT_EQ(tokens[330], "<extra>");
  const auto kinds = *m.find_array_i32("tokenizer.ggml.token_type");
  EXPECT_THAT(std::vector<int32_t>(kinds.begin(), kinds.begin() + 5), ElementsAre(2, 3, 3, 4, 6));
  EXPECT_EQ(kinds[330], 4);
  EXPECT_EQ(kinds[331], 5);
  EXPECT_EQ(m.find_array_f32("tokenizer.ggml.scores")->size(), 332u);
}

TEST(SentencePieceModel, CutOrChangedBytesNeverCrash) {
  const TestFolder folder;
  const std::string bytes = read_text_file(train(folder, "bpe"));
  size_t refused = 0;
  for (size_t n = 0; n < bytes.size(); n += 7) {
    try {
      (void)parse_sentencepiece_model(std::string_view(bytes).substr(0, n), "cut");
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, bytes.size() / 14);
  for (size_t at = 0; at < 2000; ++at) {
    std::string changed = bytes;
    changed[at] = static_cast<char>(0xff);
    try {
      for (const SentencePieceModel::Piece& piece : parse_sentencepiece_model(changed, "changed").pieces) {
        ASSERT_LE(piece.text.size(), changed.size());
      }
    } catch (const Error&) {
    }
  }
  EXPECT_THROW((void)parse_sentencepiece_model("", "empty"), Error);
}

}  // namespace
}  // namespace mneme
