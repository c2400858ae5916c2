#include "train/export_gguf.h"

#include <gtest/gtest.h>

#include "model/chat/chat_template.h"
#include "model/tokenizer/tokenizer.h"
#include "train/data/chat_encoder.h"
#include "weights/gguf_reader.h"
#include "weights/gguf_test_bytes.h"

namespace mneme::train {
namespace {

/// What a chat feeds to the exported model is, token for token, what the model was trained on.
TEST(ExportGguf, ChatPromptHasTheTokensOfTraining) {
  const std::vector<Turn> turns = {{Speaker::kSystem, TurnKind::kStatement, "Known: the cat is called Tovarin."},
                                   {Speaker::kUser, TurnKind::kQuestion, "What is my cat called?"}};
  std::vector<std::string> texts;
  for (const Turn& turn : turns) texts.push_back(turn.text);
  const TrainTokenizer trained = TrainTokenizer::train(texts, 300);
  LlamaSizes sizes;
  sizes.vocabulary = trained.size();
  sizes.width = 16;
  sizes.n_layers = 1;
  sizes.n_heads = sizes.n_kv_heads = 2;
  sizes.ffn_width = 16;
  sizes.context = 64;
  Ledger ledger;
  LlamaModel<float> model(ledger, sizes, GemmFormat::kFull);
  const TestFolder folder;
  export_gguf(folder.file("m.gguf"), "tiny", model, trained, DType::kF32);

  const ModelFile file = open_gguf(folder.file("m.gguf"));
  const auto tokenizer = Tokenizer::load(file.metadata());
  const auto chat = load_chat_template(file.metadata(), *tokenizer);
  ASSERT_TRUE(chat);
  const Json messages = {{{"role", "system"}, {"content", turns[0].text}},
                         {{"role", "user"}, {"content", turns[1].text}}};
  std::vector<int32_t> expected = encode_dialogue(trained, turns, {}).ids;
  expected.push_back(trained.id_of(TrainTokenizer::kAssistantMark));
  EXPECT_EQ(tokenizer->encode_segments(chat->render(messages, {}), true), expected);
}

}  // namespace
}  // namespace mneme::train
