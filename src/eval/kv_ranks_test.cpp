#include "eval/kv_ranks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <utility>

#include "base/philox.h"
#include "base/test_data.h"
#include "base/test_error.h"
#include "engine/kv_fit.h"
#include "eval/own_text.h"
#include "eval/kv_quality.h"

namespace mneme {
namespace {

TEST(RankCurve, FallsEvenlyBetweenMeasurementsAndNeverRises) {
  const RankCurve curve{{8, 16, 32, 64}, {0.4, 0.1, 0.2, 0.0}};
  EXPECT_DOUBLE_EQ(curve.at(8), 0.4);
  EXPECT_DOUBLE_EQ(curve.at(12), 0.4 * std::sqrt(0.5));
  EXPECT_DOUBLE_EQ(curve.at(16), 0.2);  // 32 measured 0.2, so 16 cannot be worth less
  EXPECT_DOUBLE_EQ(curve.at(32), 0.2);
  EXPECT_DOUBLE_EQ(curve.at(48), 0.1);
  EXPECT_DOUBLE_EQ(curve.at(64), 0.0);
  EXPECT_DOUBLE_EQ((RankCurve{{64}, {0.1}}.at(64)), 0.1);
}

TEST(MeasuredRanks, SpreadAroundTheDensity) {
  using Features = KvChoices::Features;
  EXPECT_EQ(measured_ranks(128, Features{0.5f, 0.5f}), (std::vector<size_t>{4, 12, 24, 48, 96}));
  EXPECT_EQ(measured_ranks(128, Features{0.1f, 0.1f}), (std::vector<size_t>{2, 6, 13, 26, 96}));
  EXPECT_EQ(measured_ranks(128, Features{0.1f, 0.9f}), (std::vector<size_t>{2, 6, 13, 26, 122}));
  EXPECT_EQ(measured_ranks(8, Features{0.5f, 0.5f}), (std::vector<size_t>{1, 2, 3, 6}));
}

/// The least loss by trying every combination.
double best_by_trying(std::span<const std::vector<RankOption>> sides, uint64_t budget) {
  if (sides.empty()) return 0;
  double best = std::numeric_limits<double>::infinity();
  for (const RankOption& option : sides.front()) {
    if (option.bytes > budget) continue;
    best = std::min(best, option.loss + best_by_trying(sides.subspan(1), budget - option.bytes));
  }
  return best;
}

TEST(ChooseRanks, IsTheBestOfAllCombinations) {
  PhiloxStream random(3);
  for (int round = 0; round < 40; ++round) {
    std::vector<std::vector<RankOption>> sides(4);
    uint64_t least = 0, most = 0;
    for (auto& options : sides) {
      double loss = 1 + 0.1 * round;
      for (size_t i = 1; i <= 6; ++i) {
        loss *= random.next_double();  // neither convex nor alike
        options.push_back({4 * i, 128 * (4 * i + random.next_below(3)), loss});
      }
      least += options.front().bytes;
      most += options.back().bytes;
    }
    const uint64_t budget = least + (most - least) * static_cast<uint64_t>(round) / 40;
    const std::vector<size_t> ranks = choose_ranks(sides, budget);
    ASSERT_EQ(ranks.size(), 4u);
    double loss = 0;
    uint64_t bytes = 0;
    for (size_t i = 0; i < 4; ++i) {
      const RankOption& option = sides[i][ranks[i] / 4 - 1];
      loss += option.loss;
      bytes += option.bytes;
    }
    EXPECT_LE(bytes, budget);
    EXPECT_NEAR(loss, best_by_trying(sides, budget), 1e-12);
  }
  EXPECT_TRUE(choose_ranks(std::vector<std::vector<RankOption>>{{{4, 100, 1.0}}}, 99).empty());
}

class PocketRanks : public testing::Test {
 protected:
  void SetUp() override {
    PlanRequest request;
    request.context = 512;
    request.n_sequences = fit_sequences(kMeasured);
    engine_ = Engine::load(source_path("models/pocket.gguf"), request, ledger_);
  }

  /// Curves of all layers that fall from a height that `height(side)` gives; sides are keys and values of layers in
  /// turn.
  template <typename Height>
  RankCurves curves(Height height) const {
    RankCurves out;
    out.layers.resize(engine_->model().blocks.size());
    const auto curve = [](double h) { return RankCurve{{4, 12, 24, 48, 96}, {2 * h, h, h / 2, h / 5, h / 20}}; };
    for (size_t i = 0; i < out.layers.size(); ++i) {
      out.layers[i] = {curve(height(2 * i)), curve(height(2 * i + 1))};
    }
    return out;
  }

  static size_t sum(std::span<const KvRanks> ranks) {
    size_t out = 0;
    for (const KvRanks& r : ranks) out += r.keys + r.values;
    return out;
  }

  const KvPolicy kMeasured = KvPolicy::parse("cskv:0.25,ranks=measured"), kEqual = KvPolicy::parse("cskv:0.25");
  Ledger ledger_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(PocketRanks, SidesThatMatterMoreGetMoreAndAllGetTheBytesOfEqualOnes) {
  const Model& model = engine_->model();
  const size_t n = model.blocks.size();
  const auto alike = choose_ranks(model, kMeasured, curves([](size_t) { return 1.0; }));
  EXPECT_EQ(sum(alike), n * 2 * 32);
  const auto uneven = choose_ranks(model, kMeasured, curves([](size_t side) { return side == 3 ? 40.0 : 1.0; }));
  EXPECT_EQ(sum(uneven), n * 2 * 32);
  EXPECT_GE(uneven[1].values, 72u);
  for (size_t i = 0; i < n; ++i) {
    EXPECT_LT(uneven[i].keys, uneven[1].values);
    EXPECT_GE(uneven[i].keys, 4u);
  }
  // Codes take whole vectors: their bytes count, not the features.
  const KvPolicy coded = KvPolicy::parse("cskv:0.25,ranks=measured+kivi:4");
  KvPolicy with_bases = coded;
  const auto moments = collect_kv_moments(*engine_, own_text(*engine_, 512), [](uint64_t, uint64_t) {});
  const auto ranks = choose_ranks(model, coded, curves([](size_t side) { return 1.0 + static_cast<double>(side); }));
  with_bases.set_bases(fit_kv_bases(model, *moments, coded, ranks));
  const auto bytes = [&](const KvPolicy& policy) { return model.state_bytes({policy, 1u << 20, 64}, 1u << 20); };
  EXPECT_LE(bytes(with_bases), bytes(coded) + n * 4096);  // of each layer, whole steps of memory
  EXPECT_GT(bytes(with_bases), bytes(coded) * 97 / 100);
}

TEST_F(PocketRanks, AreMeasuredAndLoseLess) {
  const std::vector<TokenId> text = own_text(*engine_, 1536);
  const std::span<const TokenId> fitted(text.data(), 1024), scored(text.data() + 1024, 512);
  uint64_t passes = 0;
  const auto progress = [&](const std::string& what, const char* unit, uint64_t done, uint64_t all) {
    if (std::string(unit) != "passes") return;
    EXPECT_EQ(what, "measuring ranks of keys and values");
    EXPECT_EQ(all, rank_passes(engine_->model()));
    EXPECT_GT(done, std::exchange(passes, done));
  };
  KvPolicy policies[] = {kEqual, kMeasured};
  for (KvPolicy& policy : policies) policy.set_bases(fit_policy_bases(*engine_, fitted, policy, progress));
  EXPECT_EQ(passes, engine_->model().blocks.size() * 2 * 6);
  EXPECT_EQ(policies[0].bases()->identity(),
            fit_kv_bases(*engine_, fitted, kEqual, [](uint64_t, uint64_t) {})->identity());
  std::vector<KvRanks> ranks;
  for (const KvBases::Layer& layer : policies[1].bases()->layers) ranks.push_back(layer.ranks());
  EXPECT_LE(sum(ranks), ranks.size() * 2 * 32);
  EXPECT_NE(ranks, std::vector<KvRanks>(ranks.size(), KvRanks{32, 32}));
  KvQualityOptions options;
  options.window = 512;
  const auto q = measure_kv_quality(*engine_, scored, policies, options, [](uint64_t, uint64_t) {});
  EXPECT_LT(q[1].divergence, 0.95 * q[0].divergence);
  EXPECT_LE(q[1].bytes, q[0].bytes + ranks.size() * 4096);
}

TEST_F(PocketRanks, TooLittleTextIsRefused) {
  const std::vector<TokenId> text(400, 7);
  const auto moments = collect_kv_moments(*engine_, text, [](uint64_t, uint64_t) {});
  const auto refusal = [&](const char* policy) {
    return error_of(
        [&] { measure_ranks(*engine_, text, KvPolicy::parse(policy), *moments, [](uint64_t, uint64_t) {}); });
  };
  EXPECT_THAT(refusal("cskv:0.25,ranks=measured"), testing::HasSubstr("expected 512 tokens"));
  EXPECT_THAT(refusal("cskv:0.25,ranks=measured,residual=256"), testing::HasSubstr("smaller residual"));
}

}  // namespace
}  // namespace mneme
