// The promise of --memory, on whole processes: what the plan says, what the process takes, and the limit.
//
// A program of its own: the peak that the system reports for a child is never below the size of its parent when it
// started, so the parent must stay small.

#include <gtest/gtest.h>

#include "base/test_data.h"
#include "base/test_sanitizer.h"
#include "budget/resident.h"
#include "program.h"
#include "random_model.h"
#include "weights/gguf_test_bytes.h"

namespace mneme {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

/// The sanitizers keep memory of their own beside every byte of the program.
constexpr bool kCanMeasure = !kAddressSanitizer && !kThreadSanitizer;
#define SKIP_UNMEASURABLE() \
  if (!kCanMeasure) GTEST_SKIP() << "the sanitizer keeps memory of its own beside every byte"

/// Runs a model with a full context just above the planned bytes. `prompt` is nearly the context.
void check_limits(const std::string& model, uint32_t context, const std::string& prompt, uint32_t answer,
                  uint64_t slack) {
  const std::vector<std::string> sizes = {"--context", std::to_string(context), "--batch", "128"};
  std::vector<std::string> plan = {"plan", model, "--json"};
  plan.insert(plan.end(), sizes.begin(), sizes.end());
  const Outcome planned = mneme_run(plan);
  ASSERT_TRUE(planned.ok()) << planned.err;
  const uint64_t predicted = planned.json()["total_bytes"].get<uint64_t>();
  const uint64_t memory = (predicted / kMiB + 2) * kMiB;  // the program's own size varies a little between starts

  ASSERT_LT(resident_bytes(), predicted * 9 / 10) << "the test itself is too large to measure the program";
  std::vector<std::string> run = {"run",
                                  model,
                                  "--raw",
                                  "-p",
                                  prompt,
                                  "-n",
                                  std::to_string(answer),
                                  "--temp",
                                  "0",
                                  "--ignore-eos",
                                  "--memory",
                                  std::to_string(memory / kMiB) + "M"};
  run.insert(run.end(), sizes.begin(), sizes.end());
  const Outcome ran = mneme_run(run);
  ASSERT_TRUE(ran.ok()) << ran.err;
  printf("    predicted %.2f MiB, limit %llu MiB, peak %.2f MiB\n", static_cast<double>(predicted) / kMiB,
         static_cast<unsigned long long>(memory / kMiB), static_cast<double>(ran.peak_bytes) / kMiB);
  EXPECT_LE(ran.peak_bytes * 100, memory * 103);
  const uint64_t difference = predicted > ran.peak_bytes ? predicted - ran.peak_bytes : ran.peak_bytes - predicted;
  EXPECT_LE(difference, predicted / 20 + slack) << "predicted " << predicted << ", measured " << ran.peak_bytes;
}

std::string generated(const TestFolder& folder, const RandomModel& model) {
  const std::string path = folder.file("random.gguf");
  write_random_tensors(path, model.metadata(), model.tensors());
  return path;
}

/// Of a model of 1 MB nearly all is the program itself; 3 MB are allowed for the part of it that is never touched.
TEST(Memory, TinyModelStaysInItsLimit) {
  SKIP_UNMEASURABLE();
  const auto model = shared_path("data/stories260K.gguf");
  if (!model) GTEST_SKIP() << "shared test data is missing";
  check_limits(*model, 512, std::string(400, 'q'), 80, 3 * kMiB);
}

TEST(Memory, F32ModelStaysInItsLimitAndItsPrediction) {
  SKIP_UNMEASURABLE();
  const TestFolder folder;
  check_limits(generated(folder, {384, 6, 1024, 6, 2, 4096, 512, DType::kF32}), 512, std::string(480, 'q'), 24, 0);
}

TEST(Memory, Q8ModelStaysInItsLimitAndItsPrediction) {
  SKIP_UNMEASURABLE();
  const TestFolder folder;
  check_limits(generated(folder, {768, 6, 2048, 12, 4, 4096, 512, DType::kQ8_0}), 512, std::string(480, 'q'), 24, 0);
}

/// The vocabulary's tree and the masks of a grammar are part of the plan: what its refusal advises is enough, and is
/// kept to.
TEST(Memory, GrammarsAreInThePlan) {
  SKIP_UNMEASURABLE();
  const TestFolder folder;
  const std::string model = generated(folder, {64, 2, 128, 4, 2, 60000, 512, DType::kQ8_0});
  const std::string schema = folder.write("schema.json", R"({"type": "array", "items": {"type": "string"}})");
  std::vector<std::string> run = {"run",  model,      "--raw",     "-p",  "q",
                                  "-n",   "100",      "--context", "256", "--json-schema-file",
                                  schema, "--memory", "8M"};
  const Outcome refused = mneme_run(run);
  EXPECT_EQ(refused.status, 1) << refused.err;
  EXPECT_NE(refused.err.find("cache "), std::string::npos) << refused.err;
  const size_t advice = refused.err.find("--memory ");
  ASSERT_NE(advice, std::string::npos) << refused.err;
  run.back() = refused.err.substr(advice + 9, refused.err.find('M', advice + 9) - advice - 8);
  const Outcome ran = mneme_run(run);
  ASSERT_TRUE(ran.ok()) << ran.err;
  printf("    advised %s, peak %.2f MiB\n", run.back().c_str(), static_cast<double>(ran.peak_bytes) / kMiB);
  EXPECT_LE(ran.peak_bytes * 100, std::stoull(run.back()) * kMiB * 103);
}

TEST(Memory, PlanAloneStaysInItsLimit) {
  const TestFolder folder;
  const std::string model = generated(folder, {384, 6, 1024, 6, 2, 4096, 512, DType::kF32});
  const Outcome planned = mneme_run({"plan", model, "--memory", "80M"});
  ASSERT_TRUE(planned.ok()) << planned.err;
  EXPECT_LE(planned.peak_bytes, 80 * kMiB * 103 / 100);
}

}  // namespace
}  // namespace mneme
