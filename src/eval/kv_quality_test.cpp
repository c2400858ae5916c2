#include "eval/kv_quality.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "base/test_data.h"
#include "eval/kv_choice.h"
#include "eval/own_text.h"

namespace mneme {
namespace {

TEST(KvQuality, DivergenceOfKnownDistributions) {
  const std::vector<float> p = {std::log(0.5f), std::log(0.25f), std::log(0.25f)}, q = {0, 0, 0};
  EXPECT_NEAR(kl_divergence(p, p), 0, 1e-9);
  // sum p log(3 p) = log 3 - entropy.
  EXPECT_NEAR(kl_divergence(p, q), std::log(3.0) - 1.5 * std::log(2.0), 1e-6);
}

TEST(KvQuality, ChoosesTheSmallestInsideTheBound) {
  const auto quality = [](const char* policy, uint64_t bytes, double divergence, double same) {
    KvQuality q;
    q.policy = policy;
    q.bytes = bytes;
    q.divergence = divergence;
    q.same_choice = same;
    return q;
  };
  const std::vector<KvQuality> measured = {quality("a", 800, 0.001, 0.999), quality("c", 200, 0.5, 0.7),
                                           quality("b", 400, 0.01, 0.98)};
  EXPECT_EQ(choose_among(measured, {0.02, 0.95}).policy, "b");
  EXPECT_EQ(choose_among(measured, {0.005, 0.95}).policy, "a");
  EXPECT_EQ(choose_among(measured, {0.02, 0.99}).policy, "a");
  EXPECT_EQ(choose_among(measured, {1, 0.5}).policy, "c");
  EXPECT_EQ(choose_among(measured, {1e-4, 0.95}).policy, "f16");
}

/// The model that ships with mneme, over the start of its own kind of text.
class PocketQuality : public testing::Test {
 protected:
  void SetUp() override {
    PlanRequest request;
    request.context = 512;
    request.n_sequences = 8;
    engine_ = Engine::load(source_path("models/pocket.gguf"), request, ledger_);
  }
  Ledger ledger_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(PocketQuality, F16IsItselfAndFewerBitsAreWorse) {
  const std::vector<TokenId> tokens = own_text(*engine_, 512);
  ASSERT_EQ(tokens.size(), 512u);
  std::vector<KvPolicy> policies;
  for (const char* name : {"f16", "kivi:8", "kivi:4", "kivi:2", "window:sink=2,recent=32"}) policies.push_back(KvPolicy::parse(name));
  KvQualityOptions options;
  options.window = 512;
  const auto q = measure_kv_quality(*engine_, tokens, policies, options, [](uint64_t, uint64_t) {});
  EXPECT_EQ(q[0].divergence, 0);
  EXPECT_EQ(q[0].same_choice, 1);
  EXPECT_EQ(q[0].n_scored, 255u);
  EXPECT_LT(q[1].divergence, q[2].divergence);
  EXPECT_LT(q[2].divergence, q[3].divergence);
  EXPECT_LT(q[3].divergence, q[4].divergence);
  EXPECT_LT(q[2].divergence, 0.01);
  EXPECT_LT(q[3].bytes, q[2].bytes);
}

}  // namespace
}  // namespace mneme
