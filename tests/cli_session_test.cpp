// mneme run --session and mneme session as a user would start them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/philox.h"
#include "base/test_data.h"
#include "program.h"
#include "weights/gguf_test_bytes.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

const std::string kModel = source_path("models/pocket.gguf");
constexpr const char* kTemplate = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}";

class Sessions : public testing::Test {
 protected:
  /// mneme run MODEL with a session folder of this test.
  std::vector<std::string> run(std::vector<std::string> more) const {
    more.insert(more.begin(), {"run", kModel, "--memory", "200M", "--context", "2048", "--seed", "5", "--temp", "0.8",
                               "--ignore-eos"});
    return more;
  }
  ProcessOptions home() const { return {"", {{"XDG_DATA_HOME", folder_.path().string()}}}; }
  Outcome mneme(std::vector<std::string> arguments) const { return mneme_run(std::move(arguments), home()); }
  std::string session_file(const std::string& name) const {
    return folder_.file("mneme/sessions/" + name + ".session");
  }

  TestFolder folder_;
};

TEST_F(Sessions, AChatIsThereInTheNextProcess) {
  const std::string chat = folder_.write("chat.jinja", kTemplate);
  const Outcome first = mneme(run({"--session", "work", "--template", chat, "-p", "Once upon a time", "-n", "30"}));
  ASSERT_TRUE(first.ok()) << first.err;
  const Outcome second = mneme(run({"--session", "work", "--template", chat, "-p", "And then?", "-n", "10", "--json"}));
  ASSERT_TRUE(second.ok()) << second.err;
  EXPECT_GT(second.json()["reused_tokens"].get<int>(), 20);

  const Outcome shown = mneme({"session", "show", "work", "--json"});
  ASSERT_TRUE(shown.ok()) << shown.err;
  EXPECT_EQ(shown.json()["messages"].size(), 4u);
  EXPECT_EQ(shown.json()["messages"][1]["content"].get<std::string>() + "\n", first.out);
  EXPECT_THAT(mneme({"session", "list"}).out, HasSubstr("pocket.gguf (f16)"));

  const std::string copy = folder_.file("copy");
  ASSERT_TRUE(mneme({"session", "export", "work", copy}).ok());
  EXPECT_THAT(mneme({"session", "import", "work", copy}).error(), HasSubstr("there is a session 'work' already"));
  ASSERT_TRUE(mneme({"session", "rm", "work"}).ok());
  EXPECT_THAT(mneme({"session", "show", "work"}).error(), HasSubstr("there is no session 'work'"));
  ASSERT_TRUE(mneme({"session", "import", "again", copy}).ok());
  const Outcome third = mneme(run({"--session", "again", "--template", chat, "-p", "And?", "-n", "5", "--json"}));
  ASSERT_TRUE(third.ok()) << third.err;
  EXPECT_GT(third.json()["reused_tokens"].get<int>(), 40);
  EXPECT_THAT(mneme(run({"--session", "again", "--raw", "-p", "x"})).error(), HasSubstr("leave out --raw"));
  EXPECT_THAT(mneme(run({"--session", "again", "--template", chat, "--kv", "f32", "-p", "x"})).error(),
              HasSubstr("use --kv f16"));

  // In the newest state; what an earlier save left behind is not looked at any more.
  std::fstream(copy, std::ios::in | std::ios::out | std::ios::binary)
      .seekp(static_cast<std::streamoff>(std::filesystem::file_size(copy) / 2))
      .put('!');
  EXPECT_THAT(mneme({"session", "import", "bad", copy}).error(), HasSubstr("damaged"));
}

// Pages of a prompt that one process computed are there for the next; another model or policy does not see them.
TEST_F(Sessions, APrefixCacheOutlivesTheProcess) {
  std::string prompt = "Once upon a time";
  for (int i = 0; i < 150; ++i) prompt += i % 2 == 0 ? " there was" : " a dog";
  const std::string cache = folder_.file("pages");
  const auto ask = [&](const std::string& text, std::vector<std::string> more) {
    more.insert(more.begin(), {"--raw", "-p", text, "-n", "20", "--json", "--prefix-cache", cache});
    const Outcome out = mneme(run(std::move(more)));
    EXPECT_TRUE(out.ok()) << out.err;
    EXPECT_EQ(out.err, "");
    return out.json();
  };
  const Json first = ask(prompt, {});
  EXPECT_EQ(first["cached_tokens"], 0);
  EXPECT_EQ(first["match_stop"], "nothing_cached");
  const Json second = ask(prompt, {});
  EXPECT_EQ(second["cached_tokens"], 256);
  EXPECT_EQ(second["tokens"], first["tokens"]);
  EXPECT_EQ(ask(prompt, {"--kv", "bf16"})["cached_tokens"], 0);
  const Outcome limited =
      mneme(run({"--raw", "-p", prompt, "-n", "1", "--prefix-cache", folder_.file("few"), "--disk", "8K"}));
  EXPECT_EQ(limited.status, 0);
  EXPECT_THAT(limited.err, HasSubstr("warning: prefix cache: [write] the disk tier's budget is too small"));
}

TEST_F(Sessions, AServerThatIsNotThereIsSaidAndDoneWithout) {
  const Outcome out = mneme(run({"--raw", "-p", std::string(400, 'a'), "-n", "3", "--redis", folder_.file("no.sock")}));
  EXPECT_EQ(out.status, 0);
  EXPECT_THAT(out.err, HasSubstr("warning: prefix cache: [redis] "));
  EXPECT_THAT(mneme(run({"--raw", "-p", "x", "--redis", "nowhere"})).error(), HasSubstr("expected HOST:PORT"));
}

TEST_F(Sessions, APlanSaysWhatTheDiskWillHold) {
  const Outcome planned = mneme(run({"--session", "a", "--raw", "-p", "Once", "-n", "1", "-v"}));
  ASSERT_TRUE(planned.ok()) << planned.err;
  EXPECT_THAT(planned.err, HasSubstr("\ndisk "));
}

TEST_F(Sessions, AFullDiskIsSaidAndCostsNothingThatWasSaved) {
  ASSERT_TRUE(mneme(run({"--session", "s", "--raw", "-p", "Once upon a time", "-n", "20"})).ok());
  const std::string before = read_file(session_file("s"));
  std::string words = "trap '' XFSZ; ulimit -f " + std::to_string(before.size() / 1024 + 1) + "; exec \"$0\" \"$@\"";
  std::vector<std::string> arguments = {"-c", words, program_path()};
  for (const std::string& word : run({"--session", "s", "--raw", "-p", " and they went home", "-n", "200", "--json"})) {
    arguments.push_back(word);
  }
  const Outcome full = run_program("/bin/bash", arguments, home());
  EXPECT_EQ(full.status, 0) << full.err;
  EXPECT_EQ(full.json()["tokens"].size(), 200u);
  EXPECT_THAT(full.err, HasSubstr("warning: session: not saved: [write] "));
  // Small records may still have fitted; what was there is there, and the file is whole.
  EXPECT_TRUE(read_file(session_file("s")).starts_with(before));
  EXPECT_TRUE(mneme({"session", "show", "s"}).ok());
  const Outcome budget = mneme(run({"--session", "s", "--raw", "-p", " and", "-n", "20", "--disk", "100K"}));
  EXPECT_EQ(budget.status, 0);
  EXPECT_THAT(budget.err, HasSubstr("warning: session: not saved: [reserve kv] session needs"));
}

// Killed at random moments, again and again: each time the session goes on from its last save, and in the end the text
// is the one that was never interrupted. MNEME_KILLS=200 in the environment for more of them (scripts/kill-sessions).
TEST_F(Sessions, KillingAtAnyMomentLosesNoMoreThanTheLastWords) {
  const char* chosen = std::getenv("MNEME_KILLS");
  const int n_kills = chosen != nullptr ? std::atoi(chosen) : 6;
  constexpr size_t kTokens = 900;
  const std::string prompt = "Once upon a time there was a dog";
  const Outcome whole = mneme(run({"--raw", "-p", prompt, "-n", std::to_string(kTokens), "--json"}));
  ASSERT_TRUE(whole.ok()) << whole.err;
  const size_t n_prompt = whole.json()["prompt_tokens"].get<size_t>();
  const Json want = whole.json()["tokens"];

  PhiloxStream random(chosen != nullptr ? static_cast<uint64_t>(std::time(nullptr)) : 1);
  ::setenv("XDG_DATA_HOME", folder_.path().c_str(), 1);
  size_t n_saved = 0;
  int n_rounds = 0, n_resumed = 0, n_damaged = 0;
  /// Tokens of the answer that the session holds; it must never be damaged.
  const auto saved_tokens = [&] {
    const Outcome shown = mneme({"session", "show", "s", "--json"});
    if (!std::filesystem::exists(session_file("s")) || std::filesystem::file_size(session_file("s")) == 0)
      return size_t{0};
    if (!shown.ok()) {
      ++n_damaged;
      ADD_FAILURE() << shown.err;
      return size_t{0};
    }
    const size_t tokens = shown.json()["tokens"].get<size_t>();
    return tokens < n_prompt ? 0 : tokens - n_prompt;
  };
  const auto arguments = [&](size_t n) {
    std::vector<std::string> out = run({"--session", "s", "--raw", "-n", std::to_string(n)});
    if (n == kTokens) out.insert(out.end(), {"-p", prompt});
    return out;
  };
  const auto finish = [&] {
    if (n_saved < kTokens) {  // else the last one came to its end before it was killed
      std::vector<std::string> last = arguments(kTokens - n_saved);
      last.push_back("--json");
      const Outcome end = mneme(last);
      ASSERT_TRUE(end.ok()) << end.err;
      EXPECT_EQ(end.err, "");
      const Json got = end.json()["tokens"];
      ASSERT_EQ(got.size(), kTokens - n_saved);
      for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], want[n_saved + i]) << n_saved << " + " << i;
    }
    ++n_rounds;
    n_saved = 0;
    ASSERT_TRUE(mneme({"session", "rm", "s"}).ok());
  };
  for (int kill = 0; kill < n_kills; ++kill) {
    {
      const TerminalProgram program(arguments(kTokens - n_saved));
      std::this_thread::sleep_for(std::chrono::milliseconds(random.next_u32() % 200));
    }  // killed here
    const size_t now = saved_tokens();
    EXPECT_GE(now, n_saved);
    n_resumed += now > 0 ? 1 : 0;
    n_saved = now;
    if (n_saved + 64 > kTokens) finish();
  }
  if (n_saved > 0 || n_rounds == 0) finish();
  ::unsetenv("XDG_DATA_HOME");
  std::printf("    %d kills, %d with something saved, %d damaged, %d texts compared to the end\n", n_kills, n_resumed,
              n_damaged, n_rounds);
}

}  // namespace
}  // namespace mneme
