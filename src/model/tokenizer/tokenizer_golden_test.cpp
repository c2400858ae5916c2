// Real vocabularies against the token ids that the models' own tokenizers gave, and back to text.
#include <gtest/gtest.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <iterator>
#include <random>
#include <sstream>

#include "base/error.h"
#include "base/test_data.h"
#include "base/test_sanitizer.h"
#include "base/utf8.h"
#include "model/tokenizer/test_vocabularies.h"
#include "model/tokenizer/tokenizer.h"
#include "weights/model_file.h"

namespace mneme {
namespace {

#if defined(NDEBUG)
constexpr bool kCheckedBuild = kAddressSanitizer || kThreadSanitizer;
#else
constexpr bool kCheckedBuild = true;
#endif

constexpr Tokenizer::EncodeOptions kPlain{.add_special = false, .parse_special = false};

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::string> read_inputs(const std::string& path) {
  const std::string all = read_file(path), separator = "\n__ggml_vocab_test__\n";
  std::vector<std::string> inputs;
  size_t begin = 0;
  for (size_t at; (at = all.find(separator, begin)) != std::string::npos; begin = at + separator.size()) {
    inputs.push_back(all.substr(begin, at - begin));
  }
  EXPECT_EQ(begin, all.size());
  return inputs;
}

std::vector<std::vector<TokenId>> read_outputs(const std::string& path) {
  std::istringstream lines(read_file(path));
  std::vector<std::vector<TokenId>> outputs;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream numbers(line);
    outputs.emplace_back(std::istream_iterator<TokenId>(numbers), std::istream_iterator<TokenId>());
  }
  return outputs;
}

struct Case {
  const char* name;
  bool all_bytes;  ///< There is a token for every byte, also those that UTF-8 does not use.
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

constexpr Case kLlama{"llama-spm", true}, kPhi3{"phi-3", true}, kGpt2{"gpt-2", true}, kMpt{"mpt", false},
    kDeepseek{"deepseek-llm", false}, kNeox{"gpt-neox", false}, kBert{"bert-bge", false};

std::unique_ptr<Tokenizer> load(const std::string& name) {
  const auto path = shared_path(name);
  if (!path) return nullptr;
  const ModelFile file = open_gguf(*path);
  return Tokenizer::load(file.metadata());
}

std::string vocabulary_path(const Case& c) {
  return std::string("data/tokenizers/ggml-vocab-") + c.name + ".gguf";
}

std::string case_name(const testing::TestParamInfo<Case>& c) {
  std::string name = c.param.name;
  std::erase(name, '-');
  return name;
}

/// A literal "▁" comes back as a space where spaces are marked so.
void remove_space_marks(std::string& text) {
  for (size_t at; (at = text.find(kSpaceMark)) != std::string::npos;) text.erase(at, kSpaceMark.size());
}

class Golden : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    tokenizer_ = load(vocabulary_path(GetParam()));
    if (!tokenizer_) GTEST_SKIP() << "shared test data is missing: " << vocabulary_path(GetParam());
  }
  std::unique_ptr<Tokenizer> tokenizer_;
};

/// Those that come with expected ids.
class GoldenIds : public Golden {};
/// Those whose texts come back.
class GoldenLossless : public Golden {};
/// Byte-level ones without tokens for the bytes that UTF-8 never uses.
class GoldenFewBytes : public Golden {};

TEST_P(GoldenIds, EncodesEveryLineLikeTheModelsOwnTokenizer) {
  const std::string path = *shared_path(vocabulary_path(GetParam()));
  const auto inputs = read_inputs(path + ".inp");
  const auto outputs = read_outputs(path + ".out");
  ASSERT_EQ(inputs.size(), outputs.size());
  ASSERT_EQ(inputs.size(), 46u);
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(tokenizer_->encode(inputs[i], kPlain), outputs[i]) << "text " << i << ": " << inputs[i];
    if (std::string_view(GetParam().name) != kBert.name) {
      EXPECT_EQ(tokenizer_->detokenize(outputs[i]), inputs[i]) << i;
    }
  }
}

TEST_P(Golden, EveryIdDecodes) {
  const Tokenizer& t = *tokenizer_;
  for (size_t i = 0; i < t.vocab_size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    EXPECT_FALSE(t.piece(id, true).empty()) << id;
    const bool hidden = t.kind(id) == TokenKind::kControl || t.kind(id) == TokenKind::kUnknown;
    EXPECT_EQ(t.piece(id).empty(), hidden) << id;
    EXPECT_EQ(t.find(t.text(id)), id);
  }
}

TEST_P(GoldenLossless, ArbitraryTextComesBack) {
  std::mt19937 random(8);
  for (int i = 0; i < 300; ++i) {
    const bool any_bytes = i % 2 == 0 && GetParam().all_bytes;
    std::string text = any_bytes ? random_bytes(random, random() % 200) : random_text(random, random() % 200);
    if (tokenizer_->model() == "llama") remove_space_marks(text);
    const std::vector<TokenId> ids = tokenizer_->encode(text);
    ASSERT_EQ(tokenizer_->detokenize(ids), text);
    StreamingDetokenizer stream(*tokenizer_);
    std::string streamed;
    for (const TokenId id : ids) streamed += stream.push(id);
    streamed += stream.finish();
    EXPECT_TRUE(is_valid_utf8(streamed));
    if (is_valid_utf8(text)) {
      ASSERT_EQ(streamed, text);
    }
  }
}

TEST_P(Golden, SpecialTextOfAUserStaysText) {
  const Tokenizer& t = *tokenizer_;
  for (size_t i = 0; i < t.vocab_size(); ++i) {
    const auto special = static_cast<TokenId>(i);
    if (t.kind(special) != TokenKind::kControl) continue;
    const std::string text = fmt::format("a{0}{0} b", t.text(special));
    for (const TokenId id : t.encode(text, kPlain)) {
      ASSERT_NE(t.kind(id), TokenKind::kControl) << text;
      ASSERT_NE(t.kind(id), TokenKind::kByte) << text;
    }
    const auto parsed = t.encode(text, {.add_special = false, .parse_special = true});
    EXPECT_EQ(std::count(parsed.begin(), parsed.end(), special), 2) << text;
  }
}

TEST_P(GoldenFewBytes, BytesThatHaveNoTokenBecomeReplacementCharacters) {
  EXPECT_EQ(tokenizer_->encode("a\xFF\xC0z", kPlain), tokenizer_->encode("a\uFFFD\uFFFDz", kPlain));
  EXPECT_EQ(tokenizer_->detokenize(tokenizer_->encode("\xE2\x82")), "\xE2\x82");
}

/// A megabyte of what is worst for merging, splitting and partition; CPU time, since test machines are shared.
TEST_P(Golden, LongRunsAreFast) {
  std::mt19937 random(9);
  constexpr size_t kBytes = size_t{1} << (kCheckedBuild ? 17 : 20);
  std::string noise = random_bytes(random, kBytes);
  remove_space_marks(noise);
  for (const std::string& text : {std::string(kBytes, 'a'), std::string(kBytes, ' '), noise}) {
    const std::clock_t start = std::clock();
    const std::vector<TokenId> ids = tokenizer_->encode(text, kPlain);
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    EXPECT_LT(seconds, kCheckedBuild ? 30 : 2) << "text of '" << text[0] << "'";
    if (GetParam().all_bytes || (tokenizer_->model() != "bert" && text != noise)) {
      EXPECT_TRUE(tokenizer_->detokenize(ids) == text);
    }
  }
}

TEST_P(Golden, LoadsFast) {
  const ModelFile file = open_gguf(*shared_path(vocabulary_path(GetParam())));
  const std::clock_t start = std::clock();
  const auto t = Tokenizer::load(file.metadata());
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, kCheckedBuild ? 5 : 0.5);
  EXPECT_GT(t->memory_bytes(), t->vocab_size() * 8);
  EXPECT_LT(t->memory_bytes(), 32u << 20);
}

/// The GPT-NeoX file does not name its pre-tokenizer, which is that of gpt-2: with it the tokens are those of mpt,
/// which has the same vocabulary.
TEST(GoldenNeox, IsMptWithTheRightPreTokenizer) {
  const auto path = shared_path("data/tokenizers/ggml-vocab-gpt-neox.gguf");
  const auto mpt = shared_path("data/tokenizers/ggml-vocab-mpt.gguf");
  if (!path || !mpt) GTEST_SKIP() << "shared test data is missing: data/tokenizers";
  const ModelFile file = open_gguf(*path);
  Vocabulary v = read_vocabulary(file.metadata());
  EXPECT_EQ(v.pre, "");
  v.pre = "gpt-2";
  const auto t = Tokenizer::create(v);
  const auto inputs = read_inputs(*mpt + ".inp");
  const auto outputs = read_outputs(*mpt + ".out");
  ASSERT_EQ(inputs.size(), outputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) EXPECT_EQ(t->encode(inputs[i], kPlain), outputs[i]) << inputs[i];
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, Golden, testing::Values(kLlama, kPhi3, kGpt2, kMpt, kDeepseek, kNeox, kBert),
                         case_name);
INSTANTIATE_TEST_SUITE_P(Vocabularies, GoldenIds, testing::Values(kLlama, kPhi3, kGpt2, kMpt, kDeepseek, kBert),
                         case_name);
INSTANTIATE_TEST_SUITE_P(Vocabularies, GoldenLossless, testing::Values(kLlama, kPhi3, kGpt2, kMpt, kDeepseek, kNeox),
                         case_name);
INSTANTIATE_TEST_SUITE_P(Vocabularies, GoldenFewBytes, testing::Values(kMpt, kDeepseek, kNeox), case_name);

}  // namespace
}  // namespace mneme
