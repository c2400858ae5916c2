#include "recall/search/ranking.h"

#include <gmock/gmock.h>

#include <cmath>
#include <map>

#include "base/philox.h"
#include "base/test_error.h"
#include "recall/search/learn_weights.h"
#include "recall/search/terms.h"
#include "recall/search/search_weights.h"

namespace mneme::recall {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;

TEST(Terms, CompareTextsAsReadersDo) {
  EXPECT_THAT(words_of("Ann's daughters were RUNNING, again!"), ElementsAre("ann", "daughter", "run", "again"));
  EXPECT_EQ(words_of("Caf\u00e9 \uff26\uff4c\uff4f\uff4f\uff52s"), words_of("cafe floors"));
  EXPECT_THAT(words_of("\u6771\u4eac\u90fd x"), ElementsAre("\u6771\u4eac", "\u4eac\u90fd", "x"));
  EXPECT_THAT(words_of("the of and"), ElementsAre());
  EXPECT_THAT(words_of(std::string(100, 'a') + " b"), ElementsAre("b"));
  EXPECT_THAT(entities_of("The Louvre in Paris. We met Ann Lee there, she read \"War and Peace\" and used v2.1"),
              IsSupersetOf({"louvre", "paris", "ann lee", "ann", "lee", "war and peace", "v2.1"}));
  EXPECT_THAT(entities_of("nothing here at all"), ElementsAre());
  const TermHasher a(1), b(2);
  EXPECT_EQ(a.term(TermHasher::Class::kWord, "mia").size(), 9u);
  EXPECT_NE(a.term(TermHasher::Class::kWord, "mia"), b.term(TermHasher::Class::kWord, "mia"));
  EXPECT_NE(a.term(TermHasher::Class::kWord, "mia").substr(1), a.term(TermHasher::Class::kEntity, "mia").substr(1));
}

/// Against the formula, written down anew from texts.
TEST(Bm25, AgreesWithTheFormula) {
  PhiloxStream random(1);
  for (int round = 0; round < 1000; ++round) {
    const size_t n_docs = 1 + random.next_below(20), n_terms = 1 + random.next_below(4);
    std::vector<std::vector<size_t>> docs(n_docs);
    double total = 0;
    for (auto& doc : docs) {
      doc.resize(1 + random.next_below(15));
      for (size_t& word : doc) word = random.next_below(8);
      total += static_cast<double>(doc.size());
    }
    std::vector<TermMatch> matches;
    std::vector<int64_t> lengths;
    std::vector<double> expected;
    for (const auto& doc : docs) {
      TermMatch match{static_cast<int64_t>(matches.size()), std::vector<uint16_t>(n_terms)};
      bool any = false;
      double score = 0;
      for (size_t t = 0; t < n_terms; ++t) {
        const auto c = std::count(doc.begin(), doc.end(), t);
        match.counts[t] = static_cast<uint16_t>(c);
        any |= c > 0;
        double n = 0;
        for (const auto& other : docs) n += std::count(other.begin(), other.end(), t) > 0;
        const double idf = std::log(1 + (static_cast<double>(n_docs) - n + 0.5) / (n + 0.5));
        const double length = static_cast<double>(doc.size()) / (total / static_cast<double>(n_docs));
        score += idf * static_cast<double>(c) * 2.2 / (static_cast<double>(c) + 1.2 * (0.25 + 0.75 * length));
      }
      if (!any) continue;
      matches.push_back(match);
      lengths.push_back(static_cast<int64_t>(doc.size()));
      expected.push_back(score);
    }
    const std::vector<double> scores =
        bm25(matches, lengths, static_cast<int64_t>(n_docs), total / static_cast<double>(n_docs));
    for (size_t i = 0; i < scores.size(); ++i) ASSERT_NEAR(scores[i], expected[i], 1e-9);
  }
}

TEST(Ranking, WeightsAreReadAndWritten) {
  const Json json = {{"text", 2}, {"half_life_days", 7.5}, {"context", {{"before", 0.25}}}};
  const SearchWeights weights = search_weights_from_json(json);
  EXPECT_EQ(weights.fusion.channel[0], 2);
  EXPECT_EQ(weights.fusion.half_life_days, 7.5);
  EXPECT_EQ(weights.context.before, 0.25);
  EXPECT_EQ(weights.context.series, ContextWeights().series);
  EXPECT_EQ(to_json(search_weights_from_json(to_json(weights))), to_json(weights));
  const auto error_for = [](const Json& bad) { return error_of([&] { search_weights_from_json(bad); }); };
  EXPECT_THAT(error_for({{"txt", 1}}), HasSubstr("unknown weight 'txt'"));
  EXPECT_THAT(error_for({{"text", "much"}}), HasSubstr("text: expected a number"));
  EXPECT_THAT(error_for({{"context", {{"befor", 1}}}}), HasSubstr("unknown weight 'context.befor'"));
  EXPECT_THAT(error_for({{"context", 1}}), HasSubstr("context: expected an object"));
  Candidate c;
  c.share = {1, 0, 0.5, 0};
  c.age_days = 60;
  EXPECT_NEAR(fused_score(c, {}), (1 + 0.1 * 0.5) * (1 + 0.1 * 0.25), 1e-12);
}

TEST(Ranking, DiversityPutsTheDifferentFirst) {
  const std::vector<double> relevance = {1.0, 0.99, 0.5};
  const auto alike = [](size_t i, size_t j) { return i + j == 1 ? 1.0 : 0.0; };  // the first two say the same
  EXPECT_THAT(diverse_order(relevance, 1.0, 3, alike), ElementsAre(0, 1, 2));
  EXPECT_THAT(diverse_order(relevance, 0.5, 3, alike), ElementsAre(0, 2, 1));
  EXPECT_THAT(diverse_order(relevance, 0.5, 2, alike), ElementsAre(0, 2));
  EXPECT_TRUE(diverse_order({}, 0.5, 2, alike).empty());
}

/// Where words mislead and vectors are right, the learned weights say so.
TEST(Ranking, WeightsAreLearned) {
  PhiloxStream random(8);
  const auto make = [&](int n) {
    std::vector<RankingExample> examples;
    for (int e = 0; e < n; ++e) {
      RankingExample example;
      for (uint32_t i = 0; i < 20; ++i) {
        Candidate c;
        c.share[0] = random.next_double();
        c.share[1] = 1.0 / (1 + i);
        example.candidates.push_back(c);
        example.wanted.push_back(i == 0);
      }
      examples.push_back(example);
    }
    return examples;
  };
  const auto training = make(60), fresh = make(60);
  const FusionWeights learned = learn_weights(training, {});
  EXPECT_LT(mean_reciprocal_rank(fresh, {}), 0.8);
  EXPECT_GT(mean_reciprocal_rank(fresh, learned), 0.95);
  EXPECT_EQ(learned.channel[3], FusionWeights{}.channel[3]) << "what does not matter stays";
}

}  // namespace
}  // namespace mneme::recall
