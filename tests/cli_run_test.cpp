// mneme run, plan, bench and eval as a user would start them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "base/atomic_file.h"
#include "base/test_data.h"
#include "program.h"
#include "weights/gguf_test_bytes.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr const char* kFirstSentence = ", there was a little girl named Lily.";
constexpr const char* kStory =
    ", there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. "
    "She "
    "wanted to play with it, but it was too high.";

void write_file(const std::string& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

class Stories : public testing::Test {
 protected:
  void SetUp() override {
    const auto path = shared_path("data/stories260K.gguf");
    if (!path) GTEST_SKIP() << "shared test data is missing";
    model_ = *path;
  }
  /// "run MODEL --raw -p Once upon a time" with more arguments.
  Outcome complete(std::vector<std::string> more, const ProcessOptions& options = {}) const {
    more.insert(more.begin(), {"run", model_, "--raw", "-p", "Once upon a time"});
    return mneme_run(std::move(more), options);
  }

  std::string model_;
  TestFolder folder_;
};

TEST_F(Stories, GreedyTextIsTheReference) {
  const Outcome run = complete({"-n", "57", "--temp", "0"});
  ASSERT_TRUE(run.ok()) << run.err;
  EXPECT_THAT(run.out, StartsWith(kStory));
  EXPECT_EQ(run.err, "");
  const Outcome json = complete({"-n", "57", "--temp", "0", "--json"});
  ASSERT_TRUE(json.ok()) << json.err;
  EXPECT_EQ(json.json()["text"].get<std::string>() + "\n", run.out);
  EXPECT_EQ(json.json()["tokens"].size(), 57u);
  EXPECT_EQ(json.json()["finish_reason"], "length");
}

/// Every instruction set that the processor has gives the same text; one that it lacks, or a wrong name, is refused.
TEST_F(Stories, EveryInstructionSetGivesTheSameText) {
  int n_run = 0;
  for (const char* target : {"scalar", "avx2", "avx512", "neon"}) {
    const ProcessOptions forced{"", {{"MNEME_CPU", target}}};
    const Outcome run = complete({"-n", "57", "--temp", "0"}, forced);
    if (!run.ok()) {
      EXPECT_STRNE(target, "scalar");
      EXPECT_THAT(run.error(), HasSubstr("MNEME_CPU")) << run.err;
      continue;
    }
    ++n_run;
    EXPECT_THAT(run.out, StartsWith(kStory)) << target;
  }
  EXPECT_GE(n_run, 1);
  EXPECT_THAT(complete({"-n", "1"}, {"", {{"MNEME_CPU", "abacus"}}}).error(), HasSubstr("abacus"));
}

TEST_F(Stories, AllThreadsGiveTheSameText) {
  const Outcome run =
      run_program(program_path(), {"run", model_, "--raw", "-p", "Once upon a time", "-n", "12", "--temp", "0"});
  ASSERT_TRUE(run.ok()) << run.err;
  EXPECT_THAT(run.out, StartsWith(", there was a little girl"));
}

TEST_F(Stories, QuantizedModelTellsTheSameBeginning) {
  const std::string small = folder_.file("q8.gguf");
  const Outcome quantized = mneme_run({"quantize", model_, small, "--format", "Q8_0", "--json"});
  ASSERT_TRUE(quantized.ok()) << quantized.err;
  quantized.json();
  EXPECT_LT(std::filesystem::file_size(small), std::filesystem::file_size(model_) / 2);
  const Outcome run = mneme_run({"run", small, "--raw", "-p", "Once upon a time", "-n", "24", "--temp", "0"});
  ASSERT_TRUE(run.ok()) << run.err;
  EXPECT_THAT(run.out, StartsWith(kFirstSentence));
  EXPECT_NE(mneme_run({"quantize", model_, small, "--format", "Q9_9"}).error(), "");
}

TEST_F(Stories, FormatsAreComparedSideBySide) {
  const std::string text = folder_.file("text.txt"), page = folder_.file("formats.html");
  std::string words;
  for (int i = 0; i < 20; ++i)
    words += "Once upon a time, there was a little girl named Lily. She loved to play outside. ";
  write_file(text, words);
  const Outcome compared =
      mneme_run({"quantize", model_, "--compare", "Q8_0,Q4_0,1K", "--calibrate", text, "--text", text, "--window", "64",
                 "--max-windows", "2", "--html", page, "--work", folder_.file(""), "--json"});
  ASSERT_TRUE(compared.ok()) << compared.err;
  const Json rows = compared.json();
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_TRUE(rows[0]["identical"]);
  EXPECT_LT(rows[1]["kl"].get<double>(), rows[2]["kl"].get<double>());
  EXPECT_GT(rows[1]["decode_tokens_per_second"].get<double>(), 0);
  EXPECT_THAT(rows[3]["error"].get<std::string>(), HasSubstr("size of at least"));
  EXPECT_GT(std::filesystem::file_size(page), 1000u);

  // A name that nobody knows is refused before anything is read.
  EXPECT_THAT(
      mneme_run({"quantize", model_, "--compare", "Q8_0,nonsense", "--calibrate", "missing", "--text", text}).error(),
      HasSubstr("found 'nonsense'"));
  EXPECT_THAT(
      mneme_run({"quantize", model_, folder_.file("x.gguf"), "--calibrate", "missing", "--format", "Q9"}).error(),
      HasSubstr("found 'Q9'"));
  EXPECT_THAT(mneme_run({"quantize", model_, folder_.file("x.gguf"), "--format", "BF16", "--calibrate", text,
                         "--activations", "static"})
                  .err,
              HasSubstr("expected a format with blocks"));
  const std::string empty = folder_.file("empty.txt");
  write_file(empty, "");
  EXPECT_THAT(mneme_run({"quantize", model_, folder_.file("x.gguf"), "--calibrate", empty}).error(),
              HasSubstr("[calibrate]"));
  EXPECT_THAT(mneme_run({"quantize", model_, folder_.file("x.gguf"), "--method", "gptq"}).error(),
              HasSubstr("calibration text"));
  EXPECT_THAT(mneme_run({"quantize", model_, folder_.file("x.gguf"), "--size", "1K"}).error(),
              HasSubstr("size of at least"));
  EXPECT_FALSE(std::filesystem::exists(folder_.file("x.gguf")));
}

TEST_F(Stories, BitsFollowTracesOfTheHessian) {
  const std::string text = folder_.file("text.txt"), out = folder_.file("traced.gguf");
  std::string words;
  for (int i = 0; i < 20; ++i) words += "One day, a little boy named Tim went to the park. He saw a big red ball. ";
  write_file(text, words);
  const Outcome made = mneme_run({"quantize", model_, out, "--size", "300K", "--calibrate", text, "--sensitivity",
                                  "hessian", "--candidates", "Q4_0,Q8_0", "--json"});
  ASSERT_TRUE(made.ok()) << made.err;
  EXPECT_LE(std::filesystem::file_size(out), 300u * 1024);
  const Outcome run = mneme_run({"run", out, "--raw", "-p", "Once upon a time", "-n", "24", "--temp", "0"});
  EXPECT_THAT(run.out, StartsWith(", there was a"));
  EXPECT_THAT(mneme_run({"quantize", model_, out, "--size", "300K", "--sensitivity", "hessian"}).error(),
              HasSubstr("a text to find gradients on"));
  EXPECT_THAT(mneme_run({"quantize", model_, out, "--calibrate", text, "--sensitivity", "hessian"}).error(),
              HasSubstr("expected a size"));
}

TEST_F(Stories, SeedsReproduce) {
  const auto text = [&](const char* seed) {
    const Outcome run = complete({"-n", "40", "--temp", "1.2", "--top-k", "0", "--seed", seed});
    EXPECT_TRUE(run.ok()) << run.err;
    return run.out;
  };
  const std::string seven = text("7");
  EXPECT_EQ(seven, text("7"));
  EXPECT_NE(seven, text("8"));
}

TEST_F(Stories, StopStringsEndTheAnswerAndAreLeftOut) {
  const Outcome run = complete({"-n", "57", "--temp", "0", "--stop", "Lily", "--json"});
  ASSERT_TRUE(run.ok()) << run.err;
  EXPECT_EQ(run.json()["text"], ", there was a little girl named ");
  EXPECT_EQ(run.json()["finish_reason"], "stop_string");
  EXPECT_EQ(run.json()["stop_string"], "Lily");
}

TEST_F(Stories, LogProbabilitiesAreOrderedAndOfTheAnswer) {
  const Outcome run = complete({"-n", "5", "--temp", "0", "--logprobs", "3", "--json"});
  ASSERT_TRUE(run.ok()) << run.err;
  const Json json = run.json();
  ASSERT_EQ(json["logprobs"].size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    const Json& entry = json["logprobs"][i];
    EXPECT_EQ(entry["id"], json["tokens"][i]);
    ASSERT_EQ(entry["top"].size(), 3u);
    EXPECT_EQ(entry["top"][0]["id"], entry["id"]);  // greedy takes the best
    double sum = 0;
    for (size_t k = 0; k < 3; ++k) {
      sum += std::exp(entry["top"][k]["logprob"].get<double>());
      if (k > 0) {
        EXPECT_LE(entry["top"][k]["logprob"].get<double>(), entry["top"][k - 1]["logprob"].get<double>());
      }
    }
    EXPECT_LE(sum, 1 + 1e-5);
  }
}

TEST_F(Stories, SchemaConstrainsTheAnswer) {
  const std::string schema = folder_.write("schema.json", R"({"type":"object","properties":{
      "ok":{"type":"boolean"},"kind":{"enum":["cat","dog"]}},"required":["ok","kind"],"additionalProperties":false})");
  const Outcome run = complete({"-n", "60", "--temp", "0", "--json-schema-file", schema});
  ASSERT_TRUE(run.ok()) << run.err;
  const Json answer = run.json();
  EXPECT_TRUE(answer["ok"].is_boolean());
  EXPECT_TRUE(answer["kind"] == "cat" || answer["kind"] == "dog") << run.out;
  const Outcome bad = complete({"-n", "5", "--json-schema-file", folder_.write("bad.json", "{\"type\": \"objec")});
  EXPECT_NE(bad.error(), "") << bad.err;
}

TEST_F(Stories, GrammarConstrainsTheAnswerAndItsErrorsHaveAPlace) {
  const Outcome run =
      complete({"-n", "20", "--temp", "0", "--grammar-file", folder_.write("g", "root ::= \"yes\" | \"no\"\n")});
  ASSERT_TRUE(run.ok()) << run.err;
  EXPECT_TRUE(run.out == "yes\n" || run.out == "no\n") << run.out;
  const Outcome bad = complete({"-n", "5", "--grammar-file", folder_.write("b", "root ::= \"a\"\nx ::= [z-\n")});
  EXPECT_THAT(bad.error(), HasSubstr("line 2, column")) << bad.err;
}

TEST_F(Stories, ContextOverflowIsRefusedWithTheNumbers) {
  // 5 tokens of prompt ("Once upon a time" and the start), 508 new ones, a context of 512.
  EXPECT_THAT(complete({"-n", "508"}).error(), ::testing::AllOf(HasSubstr("512"), HasSubstr("513")))
      << complete({"-n", "508"}).err;
  EXPECT_THAT(complete({"-n", "20", "--context", "16"}).error(), ::testing::AllOf(HasSubstr("16"), HasSubstr("25")));
  const Outcome beyond = complete({"-n", "5", "--context", "513"});
  EXPECT_THAT(beyond.error(), ::testing::AllOf(HasSubstr("512"), HasSubstr("513"))) << beyond.err;
}

TEST_F(Stories, InvalidUtf8IsAPromptLikeAnyOther) {
  const std::string prompt = folder_.write("prompt", "caf\xE9 \xFF\xFE Once");
  const Outcome run = mneme_run({"run", model_, "--raw", "-f", prompt, "-n", "8", "--temp", "0", "--json"});
  ASSERT_TRUE(run.ok()) << run.err;
  EXPECT_EQ(run.json()["tokens"].size(), 8u);
}

TEST_F(Stories, WrongUseIsOneLine) {
  EXPECT_THAT(mneme_run({"run", model_, "--raw", "-p", ""}).error(), HasSubstr("empty"));
  EXPECT_THAT(mneme_run({"run", model_, "-f", folder_.write("empty", "")}).error(), HasSubstr("empty"));
  EXPECT_THAT(mneme_run({"run", model_}).error(), HasSubstr("terminal"));
  EXPECT_THAT(mneme_run({"run"}).error(), HasSubstr("MODEL"));
  EXPECT_NE(mneme_run({}).error(), "");
  EXPECT_THAT(mneme_run({"dance"}).error(), HasSubstr("dance"));
  EXPECT_THAT(complete({"--memory", "lots"}).error(), HasSubstr("lots"));
  EXPECT_THAT(complete({"--kv", "f7"}).error(), HasSubstr("f7"));
  EXPECT_THAT(complete({"--logit-bias", "x=1"}).error(), HasSubstr("x=1"));
  EXPECT_THAT(complete({"--samplers", "top_q"}).error(), HasSubstr("top_q"));
  const Outcome json = mneme_run({"run", model_, "--json"});
  EXPECT_EQ(json.status, 1);
  EXPECT_EQ(parse_json(json.err, "stderr")["error"]["code"], "invalid_argument");
  const Outcome help = mneme_run({"run", "--help"});
  EXPECT_TRUE(help.ok());
  EXPECT_THAT(help.out, HasSubstr("--memory"));
}

TEST_F(Stories, PlanAddsUp) {
  const Outcome plan = mneme_run({"plan", model_, "--memory", kSmallMemory, "--json"});
  ASSERT_TRUE(plan.ok()) << plan.err;
  const Json json = plan.json();
  uint64_t sum = 0;
  for (const Json& row : json["rows"]) sum += row["bytes"].get<uint64_t>();
  EXPECT_EQ(json["total_bytes"], sum);
  EXPECT_EQ(json["limit_bytes"], kSmallMemoryMiB << 20);
  EXPECT_EQ(json["context"], 512);
  EXPECT_LE(sum, json["limit_bytes"].get<uint64_t>());
  EXPECT_GT(json["predicted_tokens_per_second"]["empty_context"], json["predicted_tokens_per_second"]["full_context"]);
}

/// The refusal names options; exactly these then work.
TEST_F(Stories, TheMinimumThatARefusalNamesIsEnough) {
  for (const std::vector<std::string>& more : {std::vector<std::string>{}, {"--batch", "256"}}) {
    std::vector<std::string> arguments = {"run", model_, "--raw", "-p", "Once", "-n", "4", "--memory", "3M"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const std::string refusal = mneme_run(arguments).error();
    ASSERT_THAT(refusal, HasSubstr("limit is 3.00 MiB"));
    const std::string memory_option = "--memory ", context_option = " with --context ";
    const size_t memory = refusal.find(memory_option), context = refusal.find(context_option);
    ASSERT_TRUE(memory != std::string::npos && context != std::string::npos) << refusal;
    arguments[8] = refusal.substr(memory + memory_option.size(), context - memory - memory_option.size());
    const size_t number = context + context_option.size();
    arguments.insert(arguments.end(),
                     {"--context", refusal.substr(number, refusal.find_first_not_of("0123456789", number) - number)});
    const Outcome again = mneme_run(arguments);
    EXPECT_TRUE(again.ok()) << refusal << "\n" << again.err;
  }
}

TEST_F(Stories, PerplexityOfItsOwnStyleIsLow) {
  std::string story = "Once upon a time";
  story += kStory;
  std::string text;
  for (int i = 0; i < 6; ++i) text += story + "\n";
  const std::string file = folder_.write("text", text);
  const Outcome run = mneme_run({"eval", "ppl", model_, file, "--window", "64", "--json"});
  ASSERT_TRUE(run.ok()) << run.err;
  const double perplexity = run.json()["perplexity"].get<double>();
  EXPECT_GT(perplexity, 1.0);
  EXPECT_LT(perplexity, 20.0);  // 512 for a model that knows nothing
  EXPECT_NEAR(std::log(perplexity), run.json()["nll"].get<double>(), 1e-6);
  EXPECT_NE(mneme_run({"eval", "ppl", model_, folder_.file("missing")}).error(), "");

  // In integers alone it is nearly as low.
  std::vector<std::string> arguments = {"eval", "ppl",    model_,         file,     "--window",
                                        "64",   "--json", "--arithmetic", "integer"};
  for (const std::string& calibrate : {file, std::string("self")}) {
    std::vector<std::string> with = arguments;
    with.insert(with.end(), {"--calibrate", calibrate, "--calibration-tokens", "512"});
    const Outcome integers = mneme_run(with);
    ASSERT_TRUE(integers.ok()) << integers.err;
    EXPECT_NEAR(integers.json()["float_perplexity"].get<double>(), perplexity, 0.01 * perplexity);
    EXPECT_NEAR(integers.json()["perplexity"].get<double>(), perplexity, 0.2 * perplexity);
    EXPECT_EQ(integers.json()["calibrated_on"], calibrate);
    EXPECT_EQ(integers.json()["tokens_scored"], run.json()["tokens_scored"]);
  }
  const Outcome missing = mneme_run({"eval", "ppl", model_, file, "--window", "64", "--arithmetic", "integer",
                                     "--calibrate", folder_.file("missing")});
  EXPECT_THAT(missing.error(), HasSubstr("missing"));
  EXPECT_NE(mneme_run({"eval", "ppl", model_, file, "--window", "5000", "--arithmetic", "integer"}).error(), "");
}

TEST_F(Stories, RoundsAtRandomAndCalibratesOnItself) {
  const auto write = [&](const std::string& name, std::vector<std::string> more) {
    more.insert(more.begin(), {"quantize", model_, folder_.file(name)});
    return mneme_run(more);
  };
  const auto bytes = [&](const std::string& name) { return read_file(folder_.file(name)); };
  ASSERT_TRUE(write("nearest", {"-f", "Q4_0"}).ok());
  const Outcome first = write("a", {"-f", "Q4_0", "--rounding", "stochastic"});
  ASSERT_TRUE(first.ok()) << first.err;
  ASSERT_TRUE(write("b", {"-f", "Q4_0", "--rounding", "stochastic"}).ok());
  ASSERT_TRUE(write("c", {"-f", "Q4_0", "--rounding", "stochastic", "--seed", "2"}).ok());
  EXPECT_EQ(bytes("a"), bytes("b"));
  EXPECT_NE(bytes("a"), bytes("c"));
  EXPECT_NE(bytes("a"), bytes("nearest"));
  EXPECT_THAT(write("d", {"-f", "Q4_0", "--rounding", "stochastic", "--calibrate", "self"}).error(),
              HasSubstr("expected no calibration"));
  EXPECT_THAT(write("d", {"-f", "Q4_1", "--pure", "--rounding", "stochastic"}).error(), HasSubstr("found none"));

  const std::vector<std::string> itself = {
      "-f", "Q4_0", "--method", "gptq", "--calibrate", "self", "--calibration-tokens", "512"};
  const Outcome zero_shot = write("e", itself);
  ASSERT_TRUE(zero_shot.ok()) << zero_shot.err;
  EXPECT_THAT(zero_shot.err, HasSubstr("512 tokens that the model made up; no user data was used"));
  ASSERT_TRUE(write("f", itself).ok());
  EXPECT_EQ(bytes("e"), bytes("f"));
  EXPECT_NE(bytes("e"), bytes("nearest"));
}

TEST_F(Stories, BenchesReportMedianAndSpread) {
  const auto check = [](const Outcome& run, const char* rate) {
    ASSERT_TRUE(run.ok()) << run.err;
    const Json values = run.json()[rate];
    EXPECT_GT(values["min"].get<double>(), 0);
    EXPECT_LE(values["min"].get<double>(), values["median"].get<double>());
    EXPECT_LE(values["median"].get<double>(), values["max"].get<double>());
  };
  check(mneme_run({"bench", "membw", "--size", "16M", "-r", "3", "--json"}), "bytes_per_second");
  check(mneme_run({"bench", "decode", model_, "-n", "4", "-r", "3", "--json"}), "tokens_per_second");
  check(mneme_run({"bench", "prefill", model_, "-n", "16", "-r", "3", "--json"}), "tokens_per_second");
}

/// `make run` without a terminal: the plan, then an answer.
TEST_F(Stories, RunScriptPrintsPlanAndAnswer) {
  const std::filesystem::path source = source_path("");
  std::error_code missing;
  if (!std::filesystem::equivalent(source / "build/release/mneme", program_path(), missing) || missing) {
    GTEST_SKIP() << "the script starts build/release/mneme, another program is tested";
  }
  const Outcome run = run_program((source / "scripts/run").string(), {model_, "64M"});
  ASSERT_TRUE(run.ok()) << run.err;
  EXPECT_THAT(run.out, HasSubstr("of a limit of 64.0 MiB"));
  EXPECT_THAT(run.out, HasSubstr(kFirstSentence));
}

}  // namespace
}  // namespace mneme
