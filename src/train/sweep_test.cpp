#include "train/sweep.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/parallel.h"
#include "base/test_data.h"
#include "weights/gguf_test_bytes.h"

namespace mneme::train {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kSweep = R"(
[run]
micro_batch_tokens = 128
[model]
width = 16
layers = 1
heads = 2
ffn_width = 16
context = 128
[tokenizer]
size = 300
sample_chars = 20000
[data]
text = ["TEXT"]
[optimizer]
kind = "adamw"
rate = 1e-3
steps = 3
[eval]
every_steps = 0
[[stage]]
until_step = 3
sequence_tokens = 64
batch_tokens = 128

[[axis.size]]
label = "w16"
[[axis.size]]
label = "w32"
model = {width = 32}

[[axis.precision]]
label = "bf16"
[[axis.precision]]
label = "E2M1"
precision = {format = "E2M1", block = 16}
)";

std::string problem_of(const std::string& text) {
  try {
    parse_sweep(text, "s.toml");
  } catch (const Error& e) {
    return e.what();
  }
  return "none";
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  return text.replace(text.find(from), from.size(), to);
}

TEST(Sweep, AllCombinationsWithMergedTables) {
  const auto runs = parse_sweep(kSweep, "s.toml");
  std::vector<std::string> names;
  for (const SweepRun& run : runs) names.push_back(run.name);
  EXPECT_THAT(names, ElementsAre("w16-bf16", "w16-E2M1", "w32-bf16", "w32-E2M1"));
  EXPECT_EQ(runs[0].recipe.model.width, 16u);
  EXPECT_EQ(runs[3].recipe.model.width, 32u);
  EXPECT_EQ(runs[3].recipe.model.ffn_width, 16u) << "keys that an axis does not name stay";
  EXPECT_EQ(runs[0].recipe.rounding.operands, 0u);
  EXPECT_EQ(runs[1].recipe.rounding.block, 16u);
  EXPECT_EQ(runs[1].recipe.stages.size(), 1u);
  EXPECT_EQ(parse_recipe(runs[1].recipe_text, "copy").rounding.format.name(), "E2M1");
}

TEST(Sweep, ShippedSweepsAreValid) {
  const std::string folder = source_path("recipes/sweeps");
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    EXPECT_GE(parse_sweep(read_text_file(entry.path().string()), entry.path().string()).size(), 2u) << entry.path();
  }
}

TEST(Sweep, BadFilesAreRefused) {
  EXPECT_THAT(problem_of(std::string(kSweep).substr(0, std::string(kSweep).find("[[axis"))),
              HasSubstr("expected [[axis.NAME]] tables, found none"));
  EXPECT_THAT(problem_of(replaced(kSweep, "\"w32\"", "\"w16\"")), HasSubstr("found w16 twice"));
  EXPECT_THAT(problem_of(replaced(kSweep, "\"w32\"", "\"../w\"")), HasSubstr("found '../w'"));
  EXPECT_THAT(problem_of(replaced(kSweep, "label = \"w32\"", "")), HasSubstr("expected a label"));
  EXPECT_THAT(problem_of(replaced(kSweep, "model = {width = 32}", "model = {widht = 32}")),
              HasSubstr("run w32-bf16: expected a valid recipe"));
  EXPECT_THAT(problem_of("axis = 3\n"), HasSubstr("found none"));
  EXPECT_THAT(problem_of("[axis]\nx = 3\n"), HasSubstr("expected [[axis.x]] tables"));
  EXPECT_THAT(problem_of("[axis"), HasSubstr("expected TOML"));
}

TEST(Sweep, RunsContinueAndReportLosses) {
  const TestFolder folder;
  AtomicFile text(folder.file("a.txt"));
  for (int i = 0; i < 60; ++i) text.write(fmt::format("The sailor number {} went to sea and saw a whale.\n\n", i));
  text.commit();
  set_n_threads(1);
  const auto runs = parse_sweep(replaced(kSweep, "TEXT", folder.file("a.txt")), "s.toml");
  SweepOptions options;
  options.directory = folder.file("runs");
  options.loss_tokens = 256;
  Trainer::Callbacks callbacks;
  size_t n_steps = 0, stop_at = 5;
  callbacks.step = [&](const StepReport&) { ++n_steps; };
  callbacks.stop = [&] { return n_steps == stop_at; };
  EXPECT_FALSE(run_sweep(runs, options, callbacks, {}));
  const auto n_lines = [&] {
    const std::string lines = read_text_file(options.directory + "/runs.jsonl");
    return std::count(lines.begin(), lines.end(), '\n');
  };
  EXPECT_EQ(n_lines(), 1);
  stop_at = 1000;
  std::vector<Json> results;
  EXPECT_TRUE(run_sweep(runs, options, callbacks, [&](const SweepRun&, const Json& line) { results.push_back(line); }));
  EXPECT_EQ(n_lines(), 4);
  EXPECT_EQ(n_steps, 12u) << "nothing was trained twice";
  ASSERT_EQ(results.size(), 4u);
  EXPECT_EQ(results[0]["labels"]["size"], "w16");
  // q, k, v, output, three of the feed-forward, and three norms.
  EXPECT_EQ(results[0]["parameters"], 7 * 16 * 16 + 3 * 16);
  EXPECT_EQ(results[0]["bytes"]["optimizer"].get<uint64_t>(),
            2 * Buffer::reserved_bytes(4 * results[0]["all_parameters"].get<uint64_t>()));
  EXPECT_EQ(results[1]["exponent_bits"], 2);
  EXPECT_EQ(results[3]["block"], 16);
  EXPECT_FALSE(results[2].contains("block"));
  EXPECT_GT(results[0]["loss"].get<double>(), 1.0);
  EXPECT_NE(results[0]["loss"], results[1]["loss"]);
}

}  // namespace
}  // namespace mneme::train
