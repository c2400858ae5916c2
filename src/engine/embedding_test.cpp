#include "engine/embedding.h"

#include <gtest/gtest.h>

#include <cmath>
#include <sstream>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/json.h"
#include "base/test_data.h"

namespace mneme {
namespace {

double cosine(std::span<const float> a, std::span<const float> b) {
  double dot = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    dot += static_cast<double>(a[i]) * b[i];
    aa += static_cast<double>(a[i]) * a[i];
    bb += static_cast<double>(b[i]) * b[i];
  }
  return dot / std::sqrt(aa * bb);
}

TEST(Embedding, MatchesTheReferenceForBothPoolings) {
  const auto folder = shared_path("golden/embeddings");
  if (!folder) GTEST_SKIP() << "shared data is missing";
  std::vector<std::string> texts;
  std::istringstream lines(read_text_file(*folder + "/texts.txt"));
  for (std::string line; std::getline(lines, line);) texts.push_back(line);
  for (const char* name : {"bert-mean", "bert-cls"}) {
    const Json want = parse_json(read_text_file(*folder + "/" + name + ".json"), name);
    Ledger ledger;
    const auto engine = Engine::load(*folder + "/" + name + ".gguf", {}, ledger);
    size_t i = 0;
    for (const auto& entry : want.is_object() ? want.at("embeddings") : want) {
      const std::vector<float> reference = (entry.is_object() ? entry.at("embedding") : entry).get<std::vector<float>>();
      const auto tokens = engine->tokenizer().encode(texts.at(i), {true, false});
      const std::vector<float> plain = embed(*engine, tokens, {std::nullopt, false});
      EXPECT_GT(cosine(plain, reference), 0.99999) << name << ": " << texts[i];
      for (size_t d = 0; d < plain.size(); ++d) EXPECT_NEAR(plain[d], reference[d], 1e-2);
      const std::vector<float> unit = embed(*engine, tokens, {});
      double length = 0;
      for (float x : unit) length += static_cast<double>(x) * x;
      EXPECT_NEAR(length, 1, 1e-5);
      ++i;
    }
    EXPECT_EQ(i, texts.size());
    EXPECT_THROW(embed(*engine, {}, {}), Error);
    const std::vector<TokenId> too_long(engine->plan().context + 1, 0);
    EXPECT_THROW(embed(*engine, too_long, {}), Error);
  }
  EXPECT_THROW(parse_pooling("max"), Error);
}

TEST(Embedding, DecodersPoolTheLastTokenInAnyChunks) {
  const auto path = shared_path("data/stories260K.gguf");
  if (!path) GTEST_SKIP() << "shared data is missing";
  std::vector<std::vector<float>> results;
  for (const uint32_t batch : {64u, 5u}) {
    Ledger ledger;
    PlanRequest request;
    request.batch = batch;
    const auto engine = Engine::load(*path, request, ledger);
    results.push_back(embed(*engine, engine->tokenizer().encode("The dog ran to the big red ball and was happy."), {}));
  }
  EXPECT_GT(cosine(results[0], results[1]), 0.999999);
}

}  // namespace
}  // namespace mneme
