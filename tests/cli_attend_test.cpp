// Attention in a process of its own (mneme attend-worker), and what its users see when that process dies.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>

#include "base/test_data.h"
#include "program.h"
#include "weights/gguf_test_bytes.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

class AttendWorkerProgram : public testing::Test {
 protected:
  void SetUp() override {
    worker_.emplace(
        std::vector<std::string>{"attend-worker", "--listen", socket_, "--folder", folder_.path().string()});
    ASSERT_TRUE(worker_->wait_for("listening at")) << worker_->screen();
  }
  std::vector<std::string> run(const std::string& kv, const std::string& tokens) const {
    return {"run",
            source_path("models/pocket.gguf"),
            "--kv",
            kv,
            "--temp",
            "0",
            "--context",
            "2048",
            "--ignore-eos",
            "-p",
            "Tell me a story.",
            "-n",
            tokens};
  }

  TestFolder folder_;
  std::string socket_ = folder_.file("worker");
  std::optional<TerminalProgram> worker_;
};

TEST_F(AttendWorkerProgram, AnswersAsTheStoreInTheProcessDoes) {
  const Outcome here = mneme_run(run("instinfer:density=1/4", "24"));
  const Outcome there = mneme_run(run("instinfer:" + socket_ + ",density=1/4", "24"));
  ASSERT_TRUE(here.ok()) << here.err;
  ASSERT_TRUE(there.ok()) << there.err;
  EXPECT_EQ(there.out, here.out);
  EXPECT_GT(here.out.size(), 40u);
}

TEST_F(AttendWorkerProgram, KilledInTheMiddleOfAnAnswerItIsOneLineAndAnotherOneServes) {
  TerminalProgram client(run("instinfer:" + socket_ + ",density=1/4", "2000"));
  ASSERT_TRUE(client.wait_for(" ")) << client.screen();
  worker_.reset();  // SIGKILL
  EXPECT_EQ(client.wait_end(), 1) << client.screen();
  const std::string screen = client.screen();
  EXPECT_THAT(screen, HasSubstr(socket_));
  const size_t error = screen.find("error: ");
  ASSERT_NE(error, std::string::npos) << screen;
  EXPECT_EQ(screen.find('\n', error), screen.size() - 1) << screen;

  const std::string second = folder_.file("second");
  worker_.emplace(std::vector<std::string>{"attend-worker", "--listen", second, "--folder", folder_.path().string()});
  ASSERT_TRUE(worker_->wait_for("listening at")) << worker_->screen();
  const Outcome after = mneme_run(run("instinfer:" + second + ",density=1/4", "8"));
  EXPECT_TRUE(after.ok()) << after.err;
}

}  // namespace
}  // namespace mneme
