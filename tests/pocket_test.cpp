// The models that ship with mneme, used as a newcomer would: facts are told and asked back.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "program.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr const char* kKnown =
    "Known: The user's cat is called Mirka. The code of the safe is 4711. Tobrin lives in Kelso.";

std::string pocket() {
  return MNEME_SOURCE_DIR "/models/pocket.gguf";
}

/// The answer to one question after a system message, greedy.
std::string answer(const std::string& system, const std::string& question) {
  const Outcome run =
      mneme_run({"run", pocket(), "--system", system, "-p", question, "--temp", "0", "--memory", "64M"});
  EXPECT_TRUE(run.ok()) << run.err;
  return run.out;
}

TEST(Pocket, FilesAreSmall) {
  EXPECT_LE(std::filesystem::file_size(pocket()), 9'000'000u);
}

TEST(Pocket, KnownFactsAreAnsweredAndOthersAreNotInvented) {
  EXPECT_THAT(answer(kKnown, "What is the code of the safe?"), HasSubstr("4711"));
  EXPECT_THAT(answer(kKnown, "What is my cat called?"), HasSubstr("Mirka"));
  EXPECT_THAT(answer(kKnown, "Where does Tobrin live?"), HasSubstr("Kelso"));
  EXPECT_THAT(answer(kKnown, "What is the code of the garage?"), StartsWith("I don't know"));
  EXPECT_THAT(answer(kKnown, "Where is the passport?"), StartsWith("I don't know"));
}

TEST(Pocket, AFactToldInTheChatIsRememberedOverAStory) {
  TerminalProgram chat({"run", pocket(), "--temp", "0", "--memory", "64M"});
  ASSERT_TRUE(chat.wait_for("> ")) << chat.screen();
  for (const char* line : {"My dog is called Brenko.\n", "Tell me a story.\n"}) {
    chat.type(line);
    ASSERT_TRUE(chat.wait_for("\r\n")) << chat.screen();
    ASSERT_TRUE(chat.wait_for("> ")) << chat.screen();
  }
  chat.type("What is my dog called?\n");
  ASSERT_TRUE(chat.wait_for("What is my dog called?")) << chat.screen();
  EXPECT_TRUE(chat.wait_for("Brenko")) << chat.screen();
  chat.type("/quit\n");
  EXPECT_EQ(chat.wait_end(), 0) << chat.screen();
}

}  // namespace
}  // namespace mneme
