// The chat that `mneme run MODEL` opens on a terminal.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/test_data.h"
#include "program.h"
#include "random_model.h"
#include "weights/gguf_test_bytes.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

constexpr const char* kTemplate = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}\n{% endfor %}";

TEST(Chat, AnswersAndObeysCommands) {
  const auto model = shared_path("data/stories260K.gguf");
  if (!model) GTEST_SKIP() << "shared test data is missing";
  const TestFolder folder;
  TerminalProgram chat({"run", *model, "--template", folder.write("chat.jinja", kTemplate), "--temp", "0", "-n", "30",
                        "--memory", kSmallMemory});
  ASSERT_TRUE(chat.wait_for("/help lists commands")) << chat.screen();
  ASSERT_TRUE(chat.wait_for("> ")) << chat.screen();
  chat.type("/help\n");
  EXPECT_TRUE(chat.wait_for("/quit")) << chat.screen();
  chat.type("/context\n");
  EXPECT_TRUE(chat.wait_for("0 of 512 tokens")) << chat.screen();
  chat.type("Once upon a time\n");
  EXPECT_TRUE(chat.wait_for("Once upon a time")) << chat.screen();
  EXPECT_TRUE(chat.wait_for("> ")) << chat.screen();
  chat.type("/context\n");
  EXPECT_TRUE(chat.wait_for(" of 512 tokens")) << chat.screen();
  EXPECT_THAT(chat.screen(), ::testing::Not(HasSubstr("error:")));
  chat.type("/memory\n");
  EXPECT_TRUE(chat.wait_for("weights")) << chat.screen();
  EXPECT_TRUE(chat.wait_for(fmt::format("of {} MiB; resident", kSmallMemoryMiB == 64 ? "64.0" : "192")))
      << chat.screen();
  chat.type("/undo\n/again\n");
  EXPECT_TRUE(chat.wait_for("error: [chat] there is no question to answer again")) << chat.screen();
  chat.type("/dance\n");
  EXPECT_TRUE(chat.wait_for("error: [chat] unknown command '/dance'")) << chat.screen();
  chat.type("/temp hot\n");
  EXPECT_TRUE(chat.wait_for("found 'hot'")) << chat.screen();
  chat.type("/quit\n");
  EXPECT_EQ(chat.wait_end(), 0) << chat.screen();
}

/// Ctrl-C during an answer ends the answer; the dialogue goes on.
TEST(Chat, InterruptStopsOnlyTheAnswer) {
  const TestFolder folder;
  // Large enough that an answer over the whole context takes seconds.
  const RandomModel model{512, 6, 1536, 8, 4, 4096, 4096, DType::kQ8_0};
  const std::string path = folder.file("model.gguf");
  write_random_tensors(path, model.metadata(), model.tensors());
  TerminalProgram chat({"run", path, "--template", folder.write("chat.jinja", kTemplate), "--temp", "0", "--ignore-eos",
                        "--memory", "256M", "--logit-bias",
                        "70=100"});  // token 70 is the byte 'C': the answer is a row of them
  ASSERT_TRUE(chat.wait_for("> ")) << chat.screen();
  for (int i = 0; i < 2; ++i) {
    chat.type("Begin now\n");
    ASSERT_TRUE(chat.wait_for("Begin now\r\n")) << chat.screen();
    ASSERT_TRUE(chat.wait_for("CCC")) << chat.screen();  // the answer has begun
    chat.type("\x03");
    EXPECT_TRUE(chat.wait_for("(stopped)")) << chat.screen();
    ASSERT_TRUE(chat.wait_for("> ")) << chat.screen();
  }
  chat.type("/quit\n");
  EXPECT_EQ(chat.wait_end(), 0) << chat.screen();
}

TEST(Chat, EndOfInputLeaves) {
  const TestFolder folder;
  const RandomModel model;
  const std::string path = folder.file("model.gguf");
  write_random_tensors(path, model.metadata(), model.tensors());
  TerminalProgram chat({"run", path});
  ASSERT_TRUE(chat.wait_for("has no chat template")) << chat.screen();
  ASSERT_TRUE(chat.wait_for("> ")) << chat.screen();
  // Line editing begins just after the prompt is shown, and a key typed in between is lost.
  EXPECT_EQ(chat.wait_end("\x04"), 0) << chat.screen();
}

}  // namespace
}  // namespace mneme
