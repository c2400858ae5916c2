#include "eval/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/test_data.h"

namespace mneme {
namespace {

TEST(Perplexity, LogLikelihoodOfAKnownDistribution) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.25f), std::log(0.25f)};
  EXPECT_NEAR(negative_log_likelihood(logits, 0), std::log(2.0), 1e-6);
  EXPECT_NEAR(negative_log_likelihood(logits, 2), std::log(4.0), 1e-6);
}

TEST(Perplexity, TrainedModelBeatsChanceAndPassesDoNotMatter) {
  const auto path = shared_path("data/stories260K.gguf");
  if (!path) GTEST_SKIP() << "shared data is missing";
  const std::string text =
      "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
      "big dog. The dog was very happy. Lily wanted to play with the dog. They ran and played all day. ";
  std::vector<double> results;
  for (const uint32_t batch : {64u, 7u}) {
    Ledger ledger;
    PlanRequest request;
    request.batch = batch;
    const auto engine = Engine::load(*path, request, ledger);
    std::vector<TokenId> tokens = engine->tokenizer().encode(text, {false, false});
    PerplexityOptions options;
    options.window = 64;
    const PerplexityResult result = perplexity(*engine, tokens, options, [](uint64_t, uint64_t) {});
    EXPECT_LT(result.perplexity, 20) << "512 tokens by chance would be 512";
    EXPECT_EQ(result.n_scored, result.n_windows * 32);
    results.push_back(result.nll);
    EXPECT_THROW(perplexity(*engine, std::span(tokens).first(10), options, [](uint64_t, uint64_t) {}), Error);
  }
  EXPECT_NEAR(results[0], results[1], 1e-5);
}

}  // namespace
}  // namespace mneme
