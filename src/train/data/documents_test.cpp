#include "train/data/documents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "base/test_error.h"
#include "base/utf8.h"
#include "train/data/mixture.h"
#include "weights/gguf_test_bytes.h"

namespace mneme::train {
namespace {

using testing::HasSubstr;

std::string numbered_lines(int n) {
  std::string text;
  for (int i = 0; i < n; ++i) text += "line " + std::to_string(i) + " \u00E9\u00E9\n";
  return text;
}

TEST(Documents, ReadsFoldersInOrderAndHoldsOutPieces) {
  const TestFolder folder;
  folder.write("b.txt", numbered_lines(40000));
  folder.write("a.md", "alpha\n");
  folder.write("c.jsonl", "{\"text\": \"gamma\"}\n\n{\"text\": \"delta\"}\n");
  folder.write("d.bin", std::string("\0", 1));  // not a text file by its name
  const std::vector<std::string> paths = {folder.path().string()};
  EXPECT_THAT(text_files(paths), testing::ElementsAre(testing::EndsWith("a.md"), testing::EndsWith("b.txt"),
                                                      testing::EndsWith("c.jsonl")));
  const Documents documents(paths);
  EXPECT_GT(documents.n_pieces(), 30u);
  std::set<std::string> train, held_out;
  for (uint64_t i = 0; i < 400; ++i) {
    PhiloxStream random(3, i);
    train.insert(documents.passage(random, Split::kTrain, 300));
    held_out.insert(documents.passage(random, Split::kHeldOut, 300));
  }
  for (const auto* part : {&train, &held_out}) {
    for (const std::string& passage : *part) {
      EXPECT_LE(passage.size(), 300u);
      EXPECT_FALSE(passage.empty());
      EXPECT_TRUE(is_valid_utf8(passage)) << "cut inside a character";
      const bool at_line =
          passage.starts_with("line ") || passage == "alpha\n" || passage == "gamma" || passage == "delta";
      EXPECT_TRUE(at_line) << passage.substr(0, 20);
    }
  }
  std::vector<std::string> both;
  std::set_intersection(train.begin(), train.end(), held_out.begin(), held_out.end(), std::back_inserter(both));
  EXPECT_TRUE(both.empty()) << both.front();
}

TEST(Documents, TextWithoutLinesIsCutBetweenCharacters) {
  const TestFolder folder;
  std::string text;
  for (int i = 0; i < 30000; ++i) text += "\u20AC";
  const std::vector<std::string> paths = {folder.write("a.txt", text)};
  const Documents documents(paths);
  for (uint64_t i = 0; i < 50; ++i) {
    PhiloxStream random(1, i);
    EXPECT_TRUE(is_valid_utf8(documents.passage(random, Split::kTrain, 100)));
  }
}

TEST(Documents, BadInputIsNamed) {
  const TestFolder folder;
  const auto error = [&](const std::string& name, const std::string& content) {
    const std::vector<std::string> paths = {folder.write(name, content)};
    return error_of([&] { const Documents documents(paths); });
  };
  EXPECT_THAT(error("a.txt", " \n"), HasSubstr("found an empty file"));
  EXPECT_THAT(error("a.txt", std::string("ab\0c", 4)), HasSubstr("zero byte at offset 2"));
  EXPECT_THAT(error("a.txt", "\xFF\xFE text"), HasSubstr("expected UTF-8"));
  EXPECT_THAT(error("a.jsonl", "{\"text\": \"x\"}\n{\"txt\": 1}\n"), HasSubstr("line 2 of"));
  EXPECT_THAT(error("a.jsonl", "{\"text\": 7}\n"), HasSubstr("line 1 of"));
  EXPECT_THAT(error("a.jsonl", "[1]\n"), HasSubstr("line 1 of"));
  EXPECT_THAT(error("a.jsonl", "{\"text\": \"x\"\n"), HasSubstr("line 1 of"));
  EXPECT_THAT(error("a.jsonl", "{\"text\": \"\"}\n"), HasSubstr("only empty documents"));
  const std::vector<std::string> missing = {folder.file("none.txt")};
  EXPECT_THAT(error_of([&] { const Documents documents(missing); }), HasSubstr("found nothing at"));
  const TestFolder empty;
  const std::vector<std::string> paths = {empty.path().string()};
  EXPECT_THAT(error_of([&] { const Documents documents(paths); }), HasSubstr("found none in"));
}

constexpr const char* kChat =
    R"({"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there"}]})"
    "\n";

TEST(ChatSource, ReadsConversationsAndRefusesOthers) {
  const TestFolder folder;
  const auto read = [&](const std::string& content) {
    const std::vector<std::string> paths = {folder.write("c.jsonl", content)};
    return ChatSource(paths);
  };
  const ChatSource chat = read(kChat);
  PhiloxStream random(1);
  const auto& turns = chat.conversation(random, Split::kTrain);
  ASSERT_EQ(turns.size(), 3u);
  EXPECT_EQ(turns[0].speaker, Speaker::kSystem);
  EXPECT_EQ(turns[2].speaker, Speaker::kAssistant);
  EXPECT_EQ(turns[2].text, "Hello there");
  const std::pair<const char*, const char*> bad[] = {
      {R"({"messages": 3})", "list \"messages\""},
      {R"({"messages": []})", "message of the assistant"},
      {R"({"messages": [{"role": "assistant", "content": ""}]})", "message of the assistant"},
      {R"({"messages": [{"role": "robot", "content": "x"}]})", "found robot"},
      {R"({"messages": [{"role": "user", "content": 5}]})", "strings \"role\" and \"content\""},
      {"7", "list \"messages\""}};
  for (const auto& [line, message] : bad) {
    const std::string error = error_of([&, text = std::string(kChat) + line + "\n"] { read(text); });
    EXPECT_THAT(error, HasSubstr(message));
    EXPECT_THAT(error, HasSubstr("line 2 of"));
  }
}

TEST(Mixture, OwnChatIsWhatIsLearnt) {
  const TestFolder folder;
  DataSources sources;
  const std::vector<std::string> paths = {folder.write("c.jsonl", kChat)};
  sources.chat = std::make_unique<ChatSource>(paths);
  MixtureOptions options;
  options.generated_dialogues = false;
  options.weights.user = 0;
  auto sample = tokenizer_sample(sources, options, 60000, 1);
  sample.push_back(numbered_lines(100));
  const TrainTokenizer tokenizer = TrainTokenizer::train(sample, 300);
  const Mixture mixture(tokenizer, sources, options, 5);
  StageOptions stage;
  stage.sequence_tokens = 128;
  stage.batch_tokens = 256;
  const OwnedBatch batch = mixture.batch(0, stage);
  ASSERT_EQ(batch.tokens.size(), 256u);
  std::vector<int32_t> learnt;
  const int32_t end = tokenizer.id_of(TrainTokenizer::kEndMark);
  for (size_t i = 0; i < batch.targets.size(); ++i) {
    if (batch.weights[i] == 0) continue;
    if (batch.targets[i] == end) break;
    learnt.push_back(batch.targets[i]);
  }
  EXPECT_EQ(tokenizer.decode(learnt), "Hello there");
}

}  // namespace
}  // namespace mneme::train
