#include "engine/sampling/truncation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "base/error.h"
#include "engine/sampling/infill.h"
#include "engine/sampling/temperature.h"
#include "engine/sampling/test_vocabulary.h"

namespace mneme {
namespace {

using Step = std::function<void(Candidates&)>;

std::vector<float> log_of(std::vector<double> p) {
  std::vector<float> out;
  for (double x : p) out.push_back(static_cast<float>(std::log(x)));
  return out;
}

/// Ids that remain, ascending, when the step starts from the whole vocabulary or from a list of it.
std::vector<TokenId> kept(const std::vector<float>& logits, const Step& step, bool dense) {
  Candidates candidates;
  candidates.reset(logits, nullptr);
  if (!dense) candidates.items();
  step(candidates);
  std::vector<TokenId> ids;
  for (const Candidate& c : candidates.items()) ids.push_back(c.id);
  std::sort(ids.begin(), ids.end());
  return ids;
}

void expect_kept(const std::vector<float>& logits, const Step& step, const std::vector<TokenId>& expected) {
  EXPECT_EQ(kept(logits, step, true), expected);
  EXPECT_EQ(kept(logits, step, false), expected);
}

const std::vector<float> kFive = log_of({0.4, 0.3, 0.15, 0.1, 0.05});

TEST(Truncation, FiveTokensInClosedForm) {
  PhiloxStream random(1);
  expect_kept(kFive, [](Candidates& c) { apply_top_k(c, 2, 0); }, {0, 1});
  expect_kept(kFive, [](Candidates& c) { apply_top_k(c, 2, 3); }, {0, 1, 2});
  expect_kept(kFive, [](Candidates& c) { apply_top_k(c, 9, 0); }, {0, 1, 2, 3, 4});
  expect_kept(kFive, [](Candidates& c) { apply_top_p(c, 0.8f, 0); }, {0, 1, 2});
  expect_kept(kFive, [](Candidates& c) { apply_top_p(c, 0.0f, 0); }, {0});
  expect_kept(kFive, [](Candidates& c) { apply_top_p(c, 0.1f, 2); }, {0, 1});
  expect_kept(kFive, [](Candidates& c) { apply_min_p(c, 0.3f, 0); }, {0, 1, 2});  // p >= 0.12
  expect_kept(kFive, [](Candidates& c) { apply_min_p(c, 1.0f, 0); }, {0});
  expect_kept(kFive, [](Candidates& c) { apply_min_p(c, 1.0f, 2); }, {0, 1});
  expect_kept(kFive, [&](Candidates& c) { apply_xtc(c, 1.0f, 0.12f, 0, random); }, {2, 3, 4});
  expect_kept(kFive, [&](Candidates& c) { apply_xtc(c, 1.0f, 0.12f, 4, random); }, {0, 1, 2, 3, 4});
  expect_kept(kFive, [&](Candidates& c) { apply_xtc(c, 1.0f, 0.35f, 0, random); }, {0, 1, 2, 3, 4});
  expect_kept(kFive, [&](Candidates& c) { apply_xtc(c, 0.0f, 0.12f, 0, random); }, {0, 1, 2, 3, 4});
  // Entropy 1.3924: distances of -ln p are 0.476, 0.188, 0.505, 0.910, 1.603, so the order is 1, 0, 2, 3, 4.
  expect_kept(kFive, [](Candidates& c) { apply_typical(c, 0.5f, 0); }, {0, 1});
  expect_kept(kFive, [](Candidates& c) { apply_typical(c, 0.25f, 0); }, {1});
  expect_kept(kFive, [](Candidates& c) { apply_typical(c, 0.25f, 3); }, {0, 1, 2});
}

TEST(Truncation, TopNSigmaUsesThePopulationDeviation) {
  const std::vector<float> logits = {4, 3, 2, 1, 0};  // deviation sqrt(2)
  expect_kept(logits, [](Candidates& c) { apply_top_n_sigma(c, 1.0f); }, {0, 1});
  expect_kept(logits, [](Candidates& c) { apply_top_n_sigma(c, 1.5f); }, {0, 1, 2});
  std::vector<float> banned = logits;
  banned.push_back(kBanned);  // must not count
  expect_kept(banned, [](Candidates& c) { apply_top_n_sigma(c, 1.5f); }, {0, 1, 2});
}

TEST(Truncation, XtcActsWithItsProbability) {
  PhiloxStream random(3);
  int acted = 0;
  for (int i = 0; i < 10000; ++i) {
    acted += kept(kFive, [&](Candidates& c) { apply_xtc(c, 0.3f, 0.12f, 0, random); }, true).size() == 3;
  }
  EXPECT_NEAR(acted, 3000, 5 * std::sqrt(10000 * 0.3 * 0.7));
}

// The definitions again, in double precision and with a full sort. `order` is the rank order of all tokens.
struct Twin {
  explicit Twin(const std::vector<float>& logits) : order(logits.size()), p(logits.size()) {
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](TokenId a, TokenId b) { return at(logits, a) > at(logits, b); });
    const double max = at(logits, order[0]);
    double total = 0;
    for (size_t i = 0; i < p.size(); ++i) total += p[i] = std::exp(logits[i] - max);
    for (double& x : p) x /= total;
  }
  template <typename T>
  static T at(const std::vector<T>& values, TokenId id) {
    return values[static_cast<size_t>(id)];
  }
  std::vector<TokenId> typical(double target) const {
    double entropy = 0;
    for (double x : p) entropy -= x > 0 ? x * std::log(x) : 0;
    std::vector<TokenId> ids = order;
    std::stable_sort(ids.begin(), ids.end(), [&](TokenId a, TokenId b) {
      return std::abs(-std::log(at(p, a)) - entropy) < std::abs(-std::log(at(p, b)) - entropy);
    });
    double sum = 0;
    size_t n = 0;
    while (n < ids.size() && sum <= target) sum += at(p, ids[n++]);
    ids.resize(n);
    std::sort(ids.begin(), ids.end());
    return ids;
  }
  std::vector<TokenId> top_k(size_t k) const {
    std::vector<TokenId> ids(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(std::min(k, order.size())));
    std::sort(ids.begin(), ids.end());
    return ids;
  }

  std::vector<TokenId> order;
  std::vector<double> p;
};

std::vector<float> random_logits(PhiloxStream& random, size_t n, float deviation) {
  std::vector<float> logits(n);
  for (float& x : logits) x = deviation * random.next_normal();
  return logits;
}

/// Sum of the probabilities of `ids`.
double mass(const Twin& twin, const std::vector<TokenId>& ids) {
  double sum = 0;
  for (TokenId id : ids) sum += Twin::at(twin.p, id);
  return sum;
}

TEST(Truncation, EqualsTheDefinitionsOnRandomLogits) {
  PhiloxStream random(5);
  for (const size_t n : {1u, 2u, 63u, 129u, 1000u, 20011u}) {
    for (const float deviation : {0.1f, 1.0f, 3.0f, 8.0f}) {
      const std::vector<float> logits = random_logits(random, n, deviation);
      const Twin twin(logits);
      for (const size_t k : {1u, 7u, 40u, 500u}) {
        expect_kept(logits, [&](Candidates& c) { apply_top_k(c, k, 0); }, twin.top_k(k));
      }
      for (const float target : {0.1f, 0.5f, 0.9f, 0.99f}) {
        // The shortest prefix of the rank order that reaches the target, up to the rounding of the sums.
        for (const bool dense : {true, false}) {
          const auto top_p = kept(logits, [&](Candidates& c) { apply_top_p(c, target, 0); }, dense);
          EXPECT_EQ(top_p, twin.top_k(top_p.size()));
          EXPECT_GE(mass(twin, top_p), target - 1e-6);
          EXPECT_LT(mass(twin, twin.top_k(top_p.size() - 1)), target + 1e-6);
        }
        const auto typical = kept(logits, [&](Candidates& c) { apply_typical(c, target, 0); }, true);
        if (n < 2000) {
          EXPECT_EQ(typical, twin.typical(target)) << n << ' ' << deviation << ' ' << target;
        }
      }
    }
  }
}

TEST(Truncation, TiesGoToLowerIds) {
  PhiloxStream random(6);
  std::vector<float> logits(3000);
  for (float& x : logits) x = static_cast<float>(random.next_below(7));
  const Twin twin(logits);
  for (const size_t k : {1u, 30u, 450u, 1500u}) {
    expect_kept(logits, [&](Candidates& c) { apply_top_k(c, k, 0); }, twin.top_k(k));
  }
}

TEST(Truncation, BannedTokensNeverRemain) {
  std::vector<float> logits(500, 1.0f);
  for (size_t i = 0; i < logits.size(); i += 2) logits[i] = kBanned;
  for (const Step& step : {Step([](Candidates& c) { apply_top_k(c, 400, 0); }),
                           Step([](Candidates& c) { apply_top_p(c, 0.999f, 0); }),
                           Step([](Candidates& c) { apply_min_p(c, 0.0001f, 0); }),
                           Step([](Candidates& c) { apply_typical(c, 0.9999f, 0); })}) {
    for (TokenId id : kept(logits, step, true)) EXPECT_EQ(id % 2, 1);
  }
}

TEST(Candidates, RefusesLogitsThatAreNoNumbers) {
  Candidates candidates;
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  std::vector<float> logits(40, 0.0f);
  logits[33] = nan;
  try {
    candidates.reset(logits, nullptr);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("NaN at token 33"), std::string::npos) << e.what();
  }
  logits[33] = infinity;
  EXPECT_THROW(candidates.reset(logits, nullptr), Error);
  logits.assign(40, -infinity);
  EXPECT_THROW(candidates.reset(logits, nullptr), Error);
  EXPECT_THROW(candidates.reset(std::vector<float>{}, nullptr), Error);
}

TEST(Candidates, FastExponentialIsAccurate) {
  for (float x = 0; x > -90; x -= 0.0137f) {
    const double exact = std::exp(static_cast<double>(x));
    EXPECT_NEAR(exp_nonpositive(x) / exact, x < -87 ? 0.0 : 1.0, 2.5e-7) << x;
  }
  EXPECT_EQ(exp_nonpositive(0), 1.0f);
  EXPECT_EQ(exp_nonpositive(kBanned), 0.0f);
  EXPECT_EQ(exp_nonpositive(std::numeric_limits<float>::lowest()), 0.0f);
}

TEST(Temperature, ScalesLogits) {
  for (const bool dense : {true, false}) {
    Candidates candidates;
    const std::vector<float> logits = {2, -1, 0.5f};
    candidates.reset(logits, nullptr);
    if (!dense) candidates.items();
    apply_temperature(candidates, 0.5f);
    EXPECT_FLOAT_EQ(candidates.items()[0].logit, 4.0f);
    EXPECT_FLOAT_EQ(candidates.items()[1].logit, -2.0f);
  }
}

TEST(Temperature, TinyTemperatureIsGreedy) {
  expect_kept({1, 3, 2}, [](Candidates& c) { apply_temperature(c, 0); }, {1});
  expect_kept({1, 3, 2}, [](Candidates& c) { apply_temperature(c, 1e-39f); }, {1});
  expect_kept({3, 3, 2}, [](Candidates& c) { apply_temperature(c, -1); }, {0});
}

TEST(Temperature, DynamicTemperatureFollowsTheEntropy) {
  Candidates candidates;
  const std::vector<float> logits = kFive;
  candidates.reset(logits, nullptr);
  apply_dynamic_temperature(candidates, 1.0f, 0.5f, 2.0f);
  double entropy = 0;
  for (double p : {0.4, 0.3, 0.15, 0.1, 0.05}) entropy -= p * std::log(p);
  const double t = 0.5 + 1.0 * std::pow(entropy / std::log(5.0), 2.0);
  EXPECT_NEAR(candidates.items()[3].logit, std::log(0.1) / t, 1e-5);
}

std::vector<std::pair<TokenId, float>> after_infill(const ListVocabulary& vocabulary, const std::vector<double>& p) {
  Candidates candidates;
  const std::vector<float> logits = log_of(p);
  candidates.reset(logits, nullptr);
  apply_infill(candidates, vocabulary);
  std::vector<std::pair<TokenId, float>> out;
  for (const Candidate& c : candidates.normalize()) out.emplace_back(c.id, c.p);
  std::sort(out.begin(), out.end());
  return out;
}

TEST(Infill, EndsWhenTheEndIsLikely) {
  const ListVocabulary vocabulary({"fo", "foo", "bar", "", "x"}, {3});
  const auto left = after_infill(vocabulary, {0.3, 0.3, 0.2, 0.1, 0.1});  // 3 * 0.1 * 5 > 0.9
  ASSERT_EQ(left.size(), 1u);
  EXPECT_EQ(left[0].first, 3);
}

TEST(Infill, MergesTokensThatBeginAlike) {
  const ListVocabulary vocabulary({"fo", "foo", "bar", "", "x"}, {3});
  // "fo" takes the 0.25 of "foo"; "bar" passes 0.2 but not 1/3 of the 0.81 that are left; the end stays.
  const auto left = after_infill(vocabulary, {0.3, 0.25, 0.25, 0.01, 0.19});
  ASSERT_EQ(left.size(), 2u);
  EXPECT_EQ(left[0].first, 0);
  EXPECT_NEAR(left[0].second, 0.55 / 0.56, 1e-5);
  EXPECT_EQ(left[1].first, 3);
}

TEST(Infill, EndsWhenNoTextIsLikely) {
  const ListVocabulary vocabulary({"a", "b", "c", "d", "e", "f", ""}, {6});
  const auto left = after_infill(vocabulary, {0.17, 0.17, 0.17, 0.16, 0.16, 0.16, 0.01});
  ASSERT_EQ(left.size(), 1u);
  EXPECT_EQ(left[0].first, 6);
}

}  // namespace
}  // namespace mneme
