// mneme tokenize, detokenize, logits and embed against golden data.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <sstream>

#include "base/test_data.h"
#include "program.h"
#include "weights/gguf_test_bytes.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

/// The texts of a vocabulary's .inp file.
std::vector<std::string> golden_texts(const std::string& path) {
  const std::string all = read_file(path), separator = "\n__ggml_vocab_test__\n";
  std::vector<std::string> texts;
  size_t begin = 0;
  for (size_t at; (at = all.find(separator, begin)) != std::string::npos; begin = at + separator.size()) {
    texts.push_back(all.substr(begin, at - begin));
  }
  return texts;
}

/// The lines of its .out file, without outer blanks.
std::vector<std::string> golden_ids(const std::string& path) {
  std::istringstream lines(read_file(path));
  std::vector<std::string> out;
  for (std::string line; std::getline(lines, line);)
    out.push_back(line.substr(std::min(line.size(), line.find_first_not_of(' '))));
  return out;
}

class Vocabulary : public testing::TestWithParam<std::string> {};

/// Every golden text that fits: the ids through --stdin, and back to the text where the vocabulary keeps it.
TEST(Program, SaysItsVersion) {
  const Outcome run = mneme_run({"--version"});
  EXPECT_TRUE(run.ok()) << run.err;
  EXPECT_TRUE(run.out.starts_with("mneme 0.") || run.out.starts_with("mneme 1.")) << run.out;
  EXPECT_NE(run.out.find("kernels for "), std::string::npos) << run.out;
}

TEST_P(Vocabulary, GivesTheGoldenIdsAndTheTextBack) {
  const auto model = shared_path("data/tokenizers/ggml-vocab-" + GetParam() + ".gguf");
  if (!model) GTEST_SKIP() << "shared test data is missing";
  const std::vector<std::string> texts = golden_texts(*model + ".inp"), ids = golden_ids(*model + ".out");
  ASSERT_EQ(texts.size(), ids.size());
  ASSERT_GT(texts.size(), 20u);
  const size_t longest = static_cast<size_t>(
      std::max_element(texts.begin(), texts.end(), [](auto& a, auto& b) { return a.size() < b.size(); }) -
      texts.begin());
  for (size_t i : {size_t{0}, size_t{1}, texts.size() / 2, longest}) {
    const Outcome run = mneme_run({"tokenize", *model, "--stdin", "--no-special"}, {texts[i], {}});
    ASSERT_TRUE(run.ok()) << run.err;
    EXPECT_EQ(run.out, ids[i] + "\n") << "text " << i << ": " << texts[i];
    const Outcome back = mneme_run({"detokenize", *model, "--stdin"}, {run.out, {}});
    ASSERT_TRUE(back.ok()) << back.err;
    if (GetParam() != "bert-bge") {  // BERT lowers case and drops blanks
      EXPECT_EQ(back.out, texts[i]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, Vocabulary, testing::Values("llama-spm", "phi-3", "gpt-2", "bert-bge"),
                         [](const auto& vocabulary) {
                           std::string name = vocabulary.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

class TextCommands : public testing::Test {
 protected:
  void SetUp() override {
    const auto path = shared_path("data/stories260K.gguf");
    if (!path) GTEST_SKIP() << "shared test data is missing";
    model_ = *path;
  }
  std::string model_;
  TestFolder folder_;
};

TEST_F(TextCommands, SpecialTokensAreOptional) {
  const Outcome with = mneme_run({"tokenize", model_, "Once upon a time"});
  const Outcome without = mneme_run({"tokenize", model_, "Once upon a time", "--no-special"});
  ASSERT_TRUE(with.ok() && without.ok()) << with.err << without.err;
  EXPECT_EQ(with.out, "1 " + without.out);
  const Json json = mneme_run({"tokenize", model_, "caf\xC3\xA9", "--json"}).json();
  EXPECT_EQ(json["tokens"].size(), json["pieces"].size());
  const Outcome shown = mneme_run({"detokenize", model_, "--special", "1 403 407"});
  EXPECT_THAT(shown.out, HasSubstr("<s>"));
  EXPECT_EQ(mneme_run({"detokenize", model_, "1 403 407", "--json"}).json()["text"], "Once upon");
}

TEST_F(TextCommands, BadIdsAreRefused) {
  EXPECT_THAT(mneme_run({"detokenize", model_, "512"}).error(), HasSubstr("512"));
  EXPECT_THAT(mneme_run({"detokenize", model_, "--", "-1"}).error(), HasSubstr("-1"));
  EXPECT_THAT(mneme_run({"detokenize", model_, "99999999999"}).error(), HasSubstr("99999999999"));
  EXPECT_THAT(mneme_run({"detokenize", model_, "4 five"}).error(), HasSubstr("five"));
  EXPECT_NE(mneme_run({"detokenize", model_}).error(), "");
  EXPECT_NE(mneme_run({"tokenize", model_}).error(), "");
  const std::string out = folder_.file("logits");
  EXPECT_THAT(mneme_run({"logits", model_, "--tokens", "1 512", "--out", out}).error(), HasSubstr("512"));
  EXPECT_THAT(mneme_run({"logits", model_, "--tokens", "1 x", "--out", out}).error(), HasSubstr("x"));
  EXPECT_THAT(mneme_run({"logits", model_, "--tokens", "1 -3", "--out", out}).error(), HasSubstr("-3"));
  EXPECT_NE(mneme_run({"logits", model_, "--tokens", " ", "--out", out}).error(), "");
  EXPECT_THAT(mneme_run({"logits", model_, "--tokens", "1", "--out", folder_.file("no/folder/x")}).error(),
              HasSubstr("no/folder"));
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path())) << "a failed command leaves nothing behind";
}

TEST_F(TextCommands, InvalidUtf8TokenizesAndComesBack) {
  const std::string text = "caf\xE9 \xFF\xFE ok";
  const Outcome ids = mneme_run({"tokenize", model_, "--stdin"}, {text, {}});
  ASSERT_TRUE(ids.ok()) << ids.err;
  const Outcome back = mneme_run({"detokenize", model_, "--stdin"}, {ids.out, {}});
  ASSERT_TRUE(back.ok()) << back.err;
  EXPECT_TRUE(back.out.starts_with("caf") && back.out.ends_with(" ok")) << back.out;
}

/// f32 files against the reference implementation: the same products in another order, so 1e-3 is ample.
TEST_F(TextCommands, LogitsAreTheReference) {
  const auto golden = shared_path("golden/logits");
  if (!golden) GTEST_SKIP() << "shared test data is missing";
  const std::string tokens = read_file(*golden + "/tokens.txt");
  for (const char* name : {"llama", "qwen2"}) {
    const std::string out = folder_.file(name);
    const Outcome run = mneme_run(
        {"logits", *golden + "/" + name + ".gguf", "--tokens", tokens, "--out", out, "--kv", "f32", "--json"});
    ASSERT_TRUE(run.ok()) << run.err;
    const std::vector<float> want = read_floats(*golden + "/" + name + ".logits.f32"), got = read_floats(out);
    EXPECT_EQ(run.json()["tokens"].get<size_t>() * run.json()["n_vocab"].get<size_t>(), want.size());
    ASSERT_EQ(got.size(), want.size());
    float worst = 0;
    for (size_t i = 0; i < want.size(); ++i) worst = std::max(worst, std::abs(got[i] - want[i]));
    EXPECT_LE(worst, 1e-3f) << name;
  }
}

double cosine(const std::vector<double>& a, const std::vector<double>& b) {
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ab += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return ab / std::sqrt(aa * bb);
}

TEST(Embed, MatchesTheReferenceOneVectorALine) {
  const auto golden = shared_path("golden/embeddings");
  if (!golden) GTEST_SKIP() << "shared test data is missing";
  const std::string texts = read_file(*golden + "/texts.txt");
  for (const char* name : {"bert-mean", "bert-cls"}) {
    const std::string model = *golden + "/" + name + ".gguf";
    const Json want = parse_json(read_file(*golden + "/" + name + ".json"), "golden embeddings");
    const Outcome run = mneme_run({"embed", model, "--stdin", "--no-normalise"}, {texts, {}});
    ASSERT_TRUE(run.ok()) << run.err;
    std::istringstream lines(run.out);
    std::string line;
    for (const Json& entry : want) {
      ASSERT_TRUE(std::getline(lines, line)) << "fewer vectors than texts";
      std::istringstream numbers(line);
      std::vector<double> got;
      for (double x = 0; numbers >> x;) got.push_back(x);
      const auto expected = entry["embedding"].get<std::vector<double>>();
      ASSERT_EQ(got.size(), expected.size());
      EXPECT_GT(cosine(got, expected), 0.99999) << name << ": " << entry["text"];
      EXPECT_NEAR(got[0], expected[0], 5e-3);  // not normalised: the length is the reference's too
    }
    EXPECT_FALSE(std::getline(lines, line)) << "more vectors than texts";
    const Json json = mneme_run({"embed", model, "Hello world", "--json"}).json();
    double squares = 0;
    for (double x : json[0]["embedding"].get<std::vector<double>>()) squares += x * x;
    EXPECT_NEAR(squares, 1, 1e-4);
    EXPECT_THAT(mneme_run({"run", model, "-p", "Hello"}).error(), HasSubstr("embed"));
    EXPECT_NE(mneme_run({"embed", model, "--stdin"}).error(), "");
    EXPECT_NE(mneme_run({"embed", model}).error(), "");
  }
}

}  // namespace
}  // namespace mneme
