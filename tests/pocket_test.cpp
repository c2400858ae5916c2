// The models that ship with mneme, used as a newcomer would: facts are told and asked back.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "base/test_data.h"
#include "program.h"
#include "weights/gguf_test_bytes.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr const char* kKnown =
    "Known: The user's cat is called Mirka. The code of the safe is 4711. Tobrin lives in Kelso.";

std::string pocket() {
  return source_path("models/pocket.gguf");
}

std::string mini() {
  return source_path("models/pocket-mini.gguf");
}

/// The answer to one question after a system message, greedy.
std::string answer(const std::string& system, const std::string& question, const std::string& model = pocket()) {
  const Outcome run = mneme_run({"run", model, "--system", system, "-p", question, "--temp", "0", "--memory", kSmallMemory});
  EXPECT_TRUE(run.ok()) << run.err;
  return run.out;
}

TEST(Pocket, FilesAreSmall) {
  EXPECT_LE(std::filesystem::file_size(pocket()), 9'000'000u);
  EXPECT_LE(std::filesystem::file_size(mini()), 2'000'000u);
}

TEST(Pocket, TheSmallOneCopiesAndRefusesToo) {
  EXPECT_THAT(answer(kKnown, "What is the code of the safe?", mini()), HasSubstr("4711"));
  EXPECT_THAT(answer(kKnown, "What is my cat called?", mini()), HasSubstr("Mirka"));
  EXPECT_THAT(answer(kKnown, "Where is the passport?", mini()), StartsWith("I don't know"));
}

TEST(Pocket, KnownFactsAreAnsweredAndOthersAreNotInvented) {
  EXPECT_THAT(answer(kKnown, "What is the code of the safe?"), HasSubstr("4711"));
  EXPECT_THAT(answer(kKnown, "What is my cat called?"), HasSubstr("Mirka"));
  EXPECT_THAT(answer(kKnown, "Where does Tobrin live?"), HasSubstr("Kelso"));
  EXPECT_THAT(answer(kKnown, "What is the code of the garage?"), StartsWith("I don't know"));
  EXPECT_THAT(answer(kKnown, "Where is the passport?"), StartsWith("I don't know"));
}

TEST(Pocket, AFactToldInTheChatIsRememberedOverAStory) {
  TerminalProgram chat({"run", pocket(), "--temp", "0", "--memory", kSmallMemory});
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

/// Two bits, the adapter that the difference starts, and the program between them: with it the logits are nearer to
/// those of the model that was quantised; twice half of it is the whole; and it goes with its own base alone.
TEST(Pocket, AnAdapterBringsTwoBitsNearerToTheModel) {
  const TestFolder folder;
  const std::string base = folder.file("int2.gguf"), adapter = folder.file("lrec.gguf"), run = folder.file("run");
  ASSERT_TRUE(mneme_run({"quantize", pocket(), base, "-f", "Q2_K", "--pure", "--requantize"}).ok());
  std::ofstream(folder.file("lrec.toml")) << "[run]\nmicro_batch_tokens = 128\n"
                                          << "[model]\nbase = \"" << base << "\"\ncontext = 128\n"
                                          << "[adapter]\nrank = 32\ntargets = [\"all\"]\nstart = \"svd\"\n"
                                          << "teacher = \"" << pocket() << "\"\n"
                                          << "[data]\ntext = [\"" << source_path("docs/training.md") << "\", \""
                                          << source_path("docs/architecture.md") << "\"]\n"
                                          << "[optimizer]\nrate = 1e-5\nsteps = 1\n[eval]\nevery_steps = 0\n"
                                          << "[[stage]]\nuntil_step = 1\nsequence_tokens = 128\nbatch_tokens = 128\n";
  const Outcome training = mneme_run({"train", folder.file("lrec.toml"), "--out", run, "--memory", "200M"});
  ASSERT_TRUE(training.ok()) << training.err;
  const Outcome exported = mneme_run({"train", "export", run, "--out", adapter});
  ASSERT_TRUE(exported.ok()) << exported.err;

  const auto logits = [&](const std::string& model, const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"logits", model,           "--tokens", "1 300 400 500 600 700 800",
                                       "--out",  folder.file("l")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = mneme_run(arguments);
    EXPECT_TRUE(outcome.ok()) << outcome.err;
    return read_floats(folder.file("l"));
  };
  const std::vector<float> exact = logits(pocket(), {}), plain = logits(base, {});
  const std::vector<float> repaired = logits(base, {"--adapter", adapter});
  const auto distance = [](const std::vector<float>& a, const std::vector<float>& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return std::sqrt(sum);
  };
  EXPECT_LT(distance(repaired, exact), 0.93 * distance(plain, exact));
  const auto halves = logits(base, {"--adapter", adapter + ":0.5", "--adapter", adapter + ":0.5"});
  // Sums in another order round some inputs of the next layers to other codes, which two bits amplify.
  EXPECT_LT(distance(halves, repaired), 0.15 * distance(plain, repaired));
  EXPECT_THAT(mneme_run({"logits", pocket(), "--tokens", "1", "--out", folder.file("l"), "--adapter", adapter}).error(),
              HasSubstr("whose rounding it corrects"));
  const Outcome plan = mneme_run({"plan", base, "--adapter", adapter, "--json"});
  EXPECT_THAT(plan.out, HasSubstr("1 adapter"));
}

/// Weights of any size: the file knows its answers with most of its blocks, and the chat lets go of some and takes them back.
TEST(Pocket, AStackOfBlocksRunsInTheMemoryThereIs) {
  const TestFolder folder;
  const std::string stack = folder.file("stack.gguf");
  const Outcome made = mneme_run({"quantize", pocket(), stack, "--format", "BITSTACK", "--lossy", "--blocks", "6"});
  ASSERT_TRUE(made.ok()) << made.err;
  const auto blocks_in = [&](const std::string& memory) {
    const Outcome plan = mneme_run({"plan", stack, "--memory", memory, "--context", "512", "--batch", "64", "--json"});
    EXPECT_TRUE(plan.ok()) << plan.err;
    return plan.json().at("stack_blocks").get<uint64_t>();
  };
  const Outcome all = mneme_run({"plan", stack, "--context", "512", "--batch", "64", "--json"});
  const uint64_t needed = all.json().at("total_bytes").get<uint64_t>();
  const uint64_t fewer = blocks_in(std::to_string(needed - 1'500'000));
  EXPECT_GT(fewer, 0u);
  EXPECT_LT(fewer, all.json().at("stack_blocks").get<uint64_t>());
  EXPECT_THAT(mneme_run({"plan", stack, "--memory", "1M", "--context", "512"}).error(), HasSubstr("but the limit is"));

  TerminalProgram chat({"run", stack, "--temp", "0", "--memory", kSmallMemory, "--context", "1024", "--batch", "64", "--system", kKnown});
  ASSERT_TRUE(chat.wait_for("blocks, ")) << chat.screen();
  chat.type("/memory " + std::to_string(needed / 1000 - 1500) + "K\n");
  ASSERT_TRUE(chat.wait_for("shrunk 1 times")) << chat.screen();
  chat.type("/memory " + kSmallMemory + "\n");
  ASSERT_TRUE(chat.wait_for("grown 1 and shrunk 1 times")) << chat.screen();
  chat.type("What is the code of the safe?\n");
  EXPECT_TRUE(chat.wait_for("4711")) << chat.screen();
  chat.type("/quit\n");
  EXPECT_EQ(chat.wait_end(), 0) << chat.screen();
}

}  // namespace
}  // namespace mneme
