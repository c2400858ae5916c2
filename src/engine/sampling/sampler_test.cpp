#include "engine/sampling/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "engine/sampling/logprobs.h"
#include "engine/sampling/mirostat.h"
#include "engine/sampling/test_vocabulary.h"

namespace mneme {
namespace {

const std::vector<double> kFive = {0.4, 0.3, 0.15, 0.1, 0.05};

std::vector<float> log_of(const std::vector<double>& p) {
  std::vector<float> out;
  for (double x : p) out.push_back(static_cast<float>(std::log(x)));
  return out;
}

/// Options that leave the distribution as it is.
SamplingOptions neutral() {
  SamplingOptions options;
  options.seed = 42;
  options.top_k = 0;
  options.top_p = 1;
  options.min_p = 0;
  options.temperature = 1;
  return options;
}

/// Chi-square statistic of n draws against the expected probabilities; a draw of probability 0 gives infinity.
double chi_square(Sampler& sampler, const std::vector<float>& logits, const std::vector<double>& expected, int n,
                  TokenConstraint* constraint = nullptr) {
  std::vector<int> counts(logits.size());
  for (int i = 0; i < n; ++i) ++counts[static_cast<size_t>(sampler.sample(logits, constraint))];
  double sum = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (expected[i] == 0) {
      if (counts[i] > 0) return std::numeric_limits<double>::infinity();
      continue;
    }
    const double e = n * expected[i];
    sum += (counts[i] - e) * (counts[i] - e) / e;
  }
  return sum;
}

// Quantiles at 1 - 1e-4 of the chi-square distribution.
constexpr double kLimit2 = 18.42, kLimit4 = 23.51, kLimit39 = 79.9;
constexpr int kDraws = 100000;

TEST(Sampler, DrawsFollowTheSoftmax) {
  const ListVocabulary vocabulary(5);
  Sampler sampler(neutral(), vocabulary);
  EXPECT_LT(chi_square(sampler, log_of(kFive), kFive, kDraws), kLimit4);
}

TEST(Sampler, TemperatureReshapesTheDistribution) {
  const ListVocabulary vocabulary(5);
  SamplingOptions options = neutral();
  options.temperature = 0.5f;
  Sampler sampler(options, vocabulary);
  std::vector<double> squared;
  double total = 0;
  for (double p : kFive) total += p * p;
  for (double p : kFive) squared.push_back(p * p / total);
  EXPECT_LT(chi_square(sampler, log_of(kFive), squared, kDraws), kLimit4);
}

TEST(Sampler, DefaultChainDrawsFromWhatItKeeps) {
  constexpr size_t kVocab = 1000;
  const ListVocabulary vocabulary(kVocab);
  PhiloxStream random(8);
  std::vector<float> logits(kVocab);
  for (float& x : logits) x = random.next_normal();
  SamplingOptions options;  // top-k 40, then top-p 0.95 of those, min-p 0.05, temperature 0.8
  options.seed = 1;
  std::vector<size_t> order(kVocab);
  for (size_t i = 0; i < kVocab; ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  double total = 0, sum = 0;
  for (size_t i = 0; i < 40; ++i) total += std::exp(logits[order[i]]);
  std::vector<double> expected(kVocab, 0);
  size_t n = 0;
  while (sum < 0.95 * total) sum += std::exp(logits[order[n++]]);
  double tempered = 0;
  for (size_t i = 0; i < n; ++i) {
    if (logits[order[i]] < logits[order[0]] + std::log(0.05)) break;
    tempered += expected[order[i]] = std::exp(logits[order[i]] / 0.8);
  }
  for (double& p : expected) p /= tempered;
  Sampler sampler(options, vocabulary);
  EXPECT_LT(chi_square(sampler, logits, expected, kDraws), kLimit39);
  EXPECT_LT(sampler.last_candidates().size(), 40u);
}

TEST(Sampler, OrderOfTheChainMatters) {
  const ListVocabulary vocabulary(5);
  SamplingOptions options = neutral();
  options.temperature = 3;
  options.min_p = 0.3f;
  options.samplers = {SamplerKind::kMinP, SamplerKind::kTemperature};
  const std::vector<float> logits = log_of(kFive);
  Sampler first(options, vocabulary);
  first.sample(logits);
  EXPECT_EQ(first.last_candidates().size(), 3u);
  options.samplers = {SamplerKind::kTemperature, SamplerKind::kMinP};  // flat by then: p / p_max = (0.05 / 0.4)^(1/3)
  Sampler last(options, vocabulary);
  last.sample(logits);
  EXPECT_EQ(last.last_candidates().size(), 5u);
  options.samplers = {SamplerKind::kTemperature};  // what is not listed is not done
  Sampler without(options, vocabulary);
  without.sample(logits);
  EXPECT_EQ(without.last_candidates().size(), 5u);
}

TEST(Sampler, GreedyTakesTheLowestIdOfTies) {
  const ListVocabulary vocabulary(300);
  std::vector<float> logits(300, -1.0f);
  logits[250] = logits[131] = logits[140] = 2.0f;
  SamplingOptions options;
  options.temperature = 0;
  Sampler sampler(options, vocabulary);
  EXPECT_EQ(sampler.sample(logits), 131);
  options.samplers = {SamplerKind::kTypical};
  options.typical_p = 0.5f;
  Sampler with_typical(options, vocabulary);  // drops the three peaks: they are too likely to be typical
  EXPECT_EQ(with_typical.sample(logits), 0);
  EXPECT_EQ(with_typical.last_candidates().size(), 1u);
}

TEST(Sampler, LogitBiasAddsAndBans) {
  const ListVocabulary vocabulary({"a", "b", "c", "d", ""}, {4});
  SamplingOptions options = neutral();
  const float ban = -std::numeric_limits<float>::infinity();
  options.logit_bias = {{0, ban}, {2, std::log(2.0f)}};
  Sampler sampler(options, vocabulary);
  EXPECT_LT(chi_square(sampler, log_of(kFive), {0, 0.3 / 0.75, 0.3 / 0.75, 0.1 / 0.75, 0.05 / 0.75}, kDraws), kLimit4);
  options.logit_bias = {{0, ban}, {1, ban}, {2, ban}, {3, ban}};
  options.ignore_end_of_generation = true;
  Sampler nothing(options, vocabulary);
  EXPECT_THROW(nothing.sample(log_of(kFive)), Error);
}

TEST(Sampler, PenaltiesChangeTheTokensOfTheWindow) {
  const ListVocabulary vocabulary(4);
  const std::vector<float> logits = {2.0f, -1.0f, 1.0f, 0.5f};
  SamplingOptions options = neutral();
  options.repeat_penalty = 2;
  options.frequency_penalty = 0.25f;
  options.presence_penalty = 0.5f;
  options.penalty_last_n = 3;
  const auto after = [&](const SamplingOptions& o, const std::vector<TokenId>& tokens) {
    Sampler sampler(o, vocabulary);
    for (TokenId t : tokens) sampler.accept(t);
    sampler.sample(logits);
    std::map<TokenId, float> out;
    for (const Candidate& c : sampler.last_candidates()) out[c.id] = c.logit;
    return out;
  };
  // Token 3 has left the window; 0 occurs twice, 1 once.
  const auto changed = after(options, {3, 0, 1, 0});
  EXPECT_FLOAT_EQ(changed.at(0), 2.0f / 2 - 2 * 0.25f - 0.5f);
  EXPECT_FLOAT_EQ(changed.at(1), -1.0f * 2 - 0.25f - 0.5f);
  EXPECT_FLOAT_EQ(changed.at(2), 1.0f);
  EXPECT_FLOAT_EQ(changed.at(3), 0.5f);
  options.penalty_last_n = -1;
  EXPECT_FLOAT_EQ(after(options, {3, 0, 1, 0}).at(3), 0.5f / 2 - 0.25f - 0.5f);
  options.penalty_last_n = 0;
  EXPECT_FLOAT_EQ(after(options, {3, 0, 1, 0}).at(0), 2.0f);
  options.penalty_last_n = 3;
  options.top_k = 2;  // after the penalties in the default order, before them here
  options.samplers = {SamplerKind::kTopK, SamplerKind::kPenalties};
  const auto list = after(options, {0, 1});
  EXPECT_EQ(list.size(), 2u);
  EXPECT_FLOAT_EQ(list.at(0), 2.0f / 2 - 0.25f - 0.5f);
}

TEST(Sampler, SameSeedSameTokens) {
  constexpr size_t kVocab = 1000;
  const ListVocabulary vocabulary(kVocab);
  const auto run = [&](uint64_t seed, int n) {
    SamplingOptions options;
    options.seed = seed;
    Sampler sampler(options, vocabulary);
    PhiloxStream random(77);
    std::vector<float> logits(kVocab);
    std::vector<TokenId> out;
    for (int i = 0; i < n; ++i) {
      for (float& x : logits) x = random.next_normal();
      out.push_back(sampler.sample(logits));
      sampler.accept(out.back());
    }
    return out;
  };
  EXPECT_EQ(run(5, 50), run(5, 50));
  EXPECT_NE(run(5, 50), run(6, 50));
  SamplingOptions unseeded;
  EXPECT_NE(Sampler(unseeded, vocabulary).seed(), Sampler(unseeded, vocabulary).seed());
}

TEST(Sampler, SavedStateContinuesIdentically) {
  constexpr size_t kVocab = 60;
  std::vector<std::string> pieces;
  for (size_t i = 0; i < kVocab; ++i) pieces.push_back(i % 9 == 0 ? "a\nb" : std::string(1, static_cast<char>('a' + i % 26)));
  const ListVocabulary vocabulary(pieces);
  SamplingOptions everything;
  everything.seed = 12345678901234567ull;
  everything.repeat_penalty = 1.1f;
  everything.frequency_penalty = 0.1f;
  everything.dry_multiplier = 0.8f;
  everything.xtc_probability = 0.5f;
  everything.adaptive_target = 0.3f;
  everything.penalty_last_n = 7;
  SamplingOptions mirostat = everything;
  mirostat.mirostat = 2;
  SamplingOptions unlimited = everything;
  unlimited.penalty_last_n = unlimited.dry_last_n = -1;
  for (const SamplingOptions& options : {everything, mirostat, unlimited}) {
    PhiloxStream random(9);
    std::vector<float> logits(kVocab);
    const auto step = [&](std::initializer_list<Sampler*> samplers) {
      for (float& x : logits) x = 2 * random.next_normal();
      std::vector<TokenId> tokens;
      for (Sampler* sampler : samplers) {
        tokens.push_back(sampler->sample(logits));
        sampler->accept(tokens.back());
      }
      return tokens;
    };
    Sampler original(options, vocabulary);
    for (int i = 0; i < 150; ++i) step({&original});
    SamplingOptions other = options;
    other.seed = 1;
    Sampler resumed(other, vocabulary);
    resumed.load_state(parse_json(original.save_state().dump(), "state"));
    for (int i = 0; i < 150; ++i) {
      const auto tokens = step({&original, &resumed});
      ASSERT_EQ(tokens[0], tokens[1]) << i;
    }
    EXPECT_EQ(original.save_state().at("position"), resumed.save_state().at("position"));
    EXPECT_EQ(original.save_state().at("mirostat_mu"), resumed.save_state().at("mirostat_mu"));
  }
}

TEST(Sampler, RefusesForeignStates) {
  const ListVocabulary vocabulary(4);
  Sampler sampler(neutral(), vocabulary);
  const Json good = sampler.save_state();
  sampler.load_state(good);
  const auto expect_refused = [&](const char* field, const Json& value) {
    Json bad = good;
    bad[field] = value;
    EXPECT_THROW(sampler.load_state(bad), Error) << field;
  };
  expect_refused("version", 2);
  expect_refused("history", Json::array({1, 4}));
  expect_refused("history", "text");
  expect_refused("mirostat_mu", nullptr);
  expect_refused("adaptive_weight", 0);
  expect_refused("dry_search", 1000);
  EXPECT_THROW(sampler.load_state(Json::array()), Error);
}

class OnlyThese : public TokenConstraint {
 public:
  OnlyThese(size_t n_vocab, const std::vector<TokenId>& ids) : mask_(n_vocab) {
    for (TokenId id : ids) mask_.set(id);
  }
  bool allows(TokenId id) override { return mask_.allows(id); }
  const TokenMask& mask() override {
    ++masks;
    return mask_;
  }
  int masks = 0;

 private:
  TokenMask mask_;
};

TEST(Sampler, ConstraintsHoldInBothModes) {
  const ListVocabulary vocabulary(5);
  OnlyThese constraint(5, {0, 2, 4});
  SamplingOptions options = neutral();
  options.constraint_mode = ConstraintMode::kExact;
  Sampler exact(options, vocabulary);
  EXPECT_LT(chi_square(exact, log_of(kFive), {0.4 / 0.6, 0, 0.15 / 0.6, 0, 0.05 / 0.6}, kDraws, &constraint), kLimit2);
  EXPECT_EQ(constraint.masks, kDraws);

  // Winner first: a refused winner (probability 0.4) is replaced by a draw from the masked distribution. Without truncation
  // that is the same distribution; the mask is asked for only when the winner is refused.
  options.constraint_mode = ConstraintMode::kWinnerFirst;
  constraint.masks = 0;
  Sampler winner_first(options, vocabulary);
  EXPECT_LT(chi_square(winner_first, log_of(kFive), {0.4 / 0.6, 0, 0.15 / 0.6, 0, 0.05 / 0.6}, kDraws, &constraint), kLimit2);
  EXPECT_NEAR(constraint.masks, 0.4 * kDraws, 5 * std::sqrt(kDraws * 0.24));

  OnlyThese nothing(5, {});
  EXPECT_THROW(winner_first.sample(log_of(kFive), &nothing), Error);
}

std::vector<float> zipf(size_t n, double exponent) {
  std::vector<float> logits(n);
  for (size_t i = 0; i < n; ++i) logits[i] = static_cast<float>(-exponent * std::log(static_cast<double>(i + 1)));
  return logits;
}

TEST(Mirostat, HoldsTheTargetSurpriseOnAZipfDistribution) {
  constexpr size_t kVocab = 30000;
  const ListVocabulary vocabulary(kVocab);
  const std::vector<float> logits = zipf(kVocab, 1.0);  // entropy 9.6 bits
  for (const int version : {1, 2}) {
    for (const float tau : {3.0f, 5.0f}) {
      SamplingOptions options = neutral();
      options.mirostat = version;
      options.mirostat_tau = tau;
      Sampler sampler(options, vocabulary);
      double surprise = 0;
      constexpr int kSteps = 2000;
      for (int i = 0; i < kSteps; ++i) {
        const TokenId token = sampler.sample(logits);
        for (const Candidate& c : sampler.last_candidates()) {
          if (c.id == token) surprise -= std::log2(c.p);
        }
        sampler.accept(token);
      }
      EXPECT_NEAR(surprise / kSteps, tau, 0.1 * tau) << "version " << version;
    }
  }
}

TEST(Mirostat, VersionOneRecoversTheZipfExponent) {
  // For p_i ~ i^-s the estimate is exact, so k follows in closed form.
  const std::vector<float> logits = zipf(5000, 1.3);
  Candidates candidates;
  candidates.reset(logits, nullptr);
  apply_mirostat_v1(candidates, 4.0f, 5000);
  const double e = 0.3, k = std::pow(e * 16 / (1 - std::pow(5000.0, -e)), 1 / 1.3);
  EXPECT_EQ(candidates.size(), static_cast<size_t>(k));
  const std::vector<float> flat(100, 1.0f);  // s = 0: surprise cannot be limited below ln V
  candidates.reset(flat, nullptr);
  apply_mirostat_v1(candidates, 10.0f, 100);
  EXPECT_EQ(candidates.size(), 100u);
}

TEST(AdaptiveP, FollowsItsFormula) {
  const ListVocabulary vocabulary(5);
  SamplingOptions options = neutral();
  options.adaptive_target = 0.2f;
  Sampler sampler(options, vocabulary);
  std::vector<double> expected;
  double total = 0;
  for (double p : kFive) {
    const double d = std::abs(p - 0.2) / 0.3;
    total += expected.emplace_back(std::exp(5 - 10 * d * d / (1 + d)));
  }
  for (double& p : expected) p /= total;
  EXPECT_LT(chi_square(sampler, log_of(kFive), expected, kDraws), kLimit4);

  AdaptiveP adaptive(0.2f, 0.9f);
  adaptive.accept(0.4f);  // A = (0.4 + 0.9 * 2) / (1 + 9)
  EXPECT_NEAR(adaptive.weighted_sum() / adaptive.total_weight(), 0.22, 1e-6);
}

TEST(AdaptiveP, KeepsTheAverageNearTheTarget) {
  const ListVocabulary vocabulary(200);
  SamplingOptions options = neutral();
  options.min_p = 0.05f;  // without truncation the many unlikely tokens pull the average down
  options.adaptive_target = 0.25f;
  Sampler sampler(options, vocabulary);
  PhiloxStream random(4);
  std::vector<float> logits(200);
  double sum = 0;
  constexpr int kSteps = 2000;
  for (int i = 0; i < kSteps; ++i) {
    for (float& x : logits) x = 3 * random.next_normal();
    sampler.accept(sampler.sample(logits));
    const Json state = sampler.save_state();
    sum += state["adaptive_sum"].get<double>() / state["adaptive_weight"].get<double>();
  }
  EXPECT_NEAR(sum / kSteps, 0.25, 0.05);  // the correction is proportional, so a part of the offset stays
}

TEST(Logprobs, AreTheLogOfTheSoftmax) {
  const std::vector<float> logits = log_of(kFive);
  const Logprobs found = token_logprobs(logits, 3, 2);
  EXPECT_NEAR(found.chosen.logprob, std::log(0.1), 1e-6);
  ASSERT_EQ(found.top.size(), 2u);
  EXPECT_EQ(found.top[1].id, 1);
  EXPECT_NEAR(found.top[1].logprob, std::log(0.3), 1e-6);
  EXPECT_EQ(top_logprobs(logits, 9).size(), 5u);

  PhiloxStream random(2);
  std::vector<float> many(40001);
  for (float& x : many) x = 5 * random.next_normal();
  double total = 0;
  for (float x : many) total += std::exp(static_cast<double>(x));
  EXPECT_NEAR(token_logprobs(many, 17, 0).chosen.logprob, many[17] - std::log(total), 1e-5);
  EXPECT_THROW(token_logprobs(many, 40001, 0), Error);
}

TEST(SamplingOptions, EveryWrongValueIsNamed) {
  SamplingOptions bad;
  bad.temperature = std::numeric_limits<float>::quiet_NaN();
  bad.top_p = 1.5f;
  bad.min_p = -0.1f;
  bad.typical_p = 2;
  bad.xtc_probability = -1;
  bad.repeat_penalty = 0;
  bad.penalty_last_n = -2;
  bad.dry_base = 0.5f;
  bad.dry_allowed_length = 0;
  bad.dry_sequence_breakers = {""};
  bad.mirostat = 3;
  bad.adaptive_decay = 1;
  bad.samplers = {SamplerKind::kTopK, SamplerKind::kTopK};
  bad.logit_bias = {{5, 1.0f}, {1, std::numeric_limits<float>::infinity()}};
  try {
    validate(bad, 5);
    FAIL();
  } catch (const Error& e) {
    for (const char* name : {"temperature", "top_p is 1.5", "min_p", "typical_p", "xtc_probability", "repeat_penalty",
                             "repeat_last_n", "dry_base", "dry_allowed_length", "dry_sequence_breakers", "mirostat is 3",
                             "adaptive_decay", "top_k twice", "token 5, expected 0 to 4", "token 1 is inf"}) {
      EXPECT_NE(std::string(e.what()).find(name), std::string::npos) << name << " in " << e.what();
    }
  }
  validate({}, 5);
  EXPECT_EQ(parse_sampler_name("typ_p"), SamplerKind::kTypical);
  EXPECT_THROW(parse_sampler_name("top-k"), Error);
  EXPECT_EQ(seed_from_request(-1), std::nullopt);
  EXPECT_EQ(seed_from_request(0xFFFFFFFF), std::nullopt);
  EXPECT_EQ(seed_from_request(7), 7u);
}

TEST(Sampler, RefusesWrongSizes) {
  const ListVocabulary vocabulary(5);
  Sampler sampler(neutral(), vocabulary);
  EXPECT_THROW(sampler.sample(std::vector<float>(4)), Error);
  EXPECT_THROW(sampler.accept(5), Error);
  EXPECT_THROW(sampler.accept(-1), Error);
}

}  // namespace
}  // namespace mneme
