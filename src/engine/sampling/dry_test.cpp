#include "engine/sampling/dry.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/philox.h"
#include "engine/sampling/sampler.h"
#include "engine/sampling/test_vocabulary.h"

namespace mneme {
namespace {

/// The definition: compares the end of the text with the text that ends at each earlier place, token by token.
std::vector<std::pair<TokenId, size_t>> brute_force(const std::vector<TokenId>& tokens, size_t limit, size_t min_length) {
  std::map<TokenId, size_t> longest;
  for (size_t next = 1; next < tokens.size(); ++next) {
    size_t length = 0;
    while (length < next && tokens[next - 1 - length] == tokens[tokens.size() - 1 - length]) ++length;
    length = std::min(length, limit);
    if (length >= min_length) longest[tokens[next]] = std::max(longest[tokens[next]], length);
  }
  return {longest.begin(), longest.end()};
}

TEST(Dry, RepetitionLengthsEqualBruteForce) {
  PhiloxStream random(1);
  for (int round = 0; round < 3000; ++round) {
    const uint64_t alphabet = 1 + random.next_below(4);
    std::vector<TokenId> tokens(random.next_below(40));
    for (TokenId& t : tokens) t = static_cast<TokenId>(random.next_below(alphabet));
    const size_t limit = random.next_below(45), min_length = 1 + random.next_below(4);
    ASSERT_EQ(repetition_lengths(tokens, limit, min_length), brute_force(tokens, limit, min_length)) << round;
  }
}

/// Logits after DRY for tokens that were accepted one by one, starting from zeros.
std::vector<float> after(const SamplingOptions& options, const ListVocabulary& vocabulary, const std::vector<TokenId>& tokens) {
  Sampler sampler(options, vocabulary);
  for (TokenId t : tokens) sampler.accept(t);
  const std::vector<float> logits(vocabulary.size(), 0.0f);
  sampler.sample(logits);
  std::vector<float> out(vocabulary.size());
  for (const Candidate& c : sampler.last_candidates()) out[static_cast<size_t>(c.id)] = c.logit;
  return out;
}

SamplingOptions dry_only() {
  SamplingOptions options;
  options.seed = 1;
  options.samplers = {SamplerKind::kDry};
  options.dry_multiplier = 0.8f;
  return options;
}

TEST(Dry, PenaltyGrowsWithTheRepetition) {
  const ListVocabulary vocabulary({"a", "b", "c", "d", "e"});
  // "a b c d a b c": d would continue a repetition of 3, one above the 2 that are free.
  const auto three = after(dry_only(), vocabulary, {0, 1, 2, 3, 0, 1, 2});
  EXPECT_FLOAT_EQ(three[3], -0.8f * 1.75f);
  EXPECT_EQ(three[4], 0.0f);
  const auto two = after(dry_only(), vocabulary, {1, 2, 3, 0, 1, 2});
  EXPECT_FLOAT_EQ(two[3], -0.8f);
  EXPECT_EQ(after(dry_only(), vocabulary, {2, 3, 0, 2})[3], 0.0f);
  SamplingOptions windowed = dry_only();
  windowed.dry_last_n = 5;  // the first occurrence lies before the window
  EXPECT_EQ(after(windowed, vocabulary, {0, 1, 2, 3, 0, 1, 2})[3], 0.0f);
  windowed.dry_last_n = 0;
  EXPECT_EQ(after(windowed, vocabulary, {0, 1, 2, 3, 0, 1, 2})[3], 0.0f);
}

TEST(Dry, LongRepetitionsStayFinite) {
  const ListVocabulary vocabulary({"a", "b"});
  SamplingOptions options = dry_only();
  options.dry_last_n = -1;
  Dry dry(1.0f, 1.75f, 2, {});
  Candidates candidates;
  const std::vector<float> logits = {0, 0};
  const std::vector<TokenId> tokens(2000, 0);
  for (size_t i = 0; i < tokens.size(); ++i) dry.accept("a");
  candidates.reset(logits, nullptr);
  dry.apply(candidates, tokens, [&](TokenId id) { return vocabulary.piece(id); });
  const float loss = candidates.logits()[0];
  EXPECT_TRUE(std::isfinite(loss));
  EXPECT_FLOAT_EQ(loss, -std::pow(1.75f, 158.0f));  // floor(88.72 / ln 1.75)
}

TEST(Dry, BreakersEndRepetitions) {
  // A breaker inside a token, and one that lies across two tokens ("x" + "yz" holds "xy").
  const ListVocabulary vocabulary({"a", "b", "c", "d", "q\nr", "x", "yz"});
  SamplingOptions options = dry_only();
  options.dry_sequence_breakers = {"\n", "xy"};
  EXPECT_FLOAT_EQ(after(options, vocabulary, {0, 1, 2, 3, 0, 1, 2})[3], -0.8f * 1.75f);
  // Only "b c" follow the breaker, so the repetition counts 2.
  EXPECT_FLOAT_EQ(after(options, vocabulary, {4, 1, 2, 3, 0, 4, 1, 2})[3], -0.8f);
  EXPECT_FLOAT_EQ(after(options, vocabulary, {5, 6, 1, 2, 3, 0, 5, 6, 1, 2})[3], -0.8f);
  // Without the breaker it would be longer.
  options.dry_sequence_breakers = {};
  EXPECT_FLOAT_EQ(after(options, vocabulary, {5, 6, 1, 2, 3, 0, 5, 6, 1, 2})[3], -0.8f * 1.75f * 1.75f);
  // A token that holds a breaker may be repeated.
  EXPECT_LT(after(options, vocabulary, {0, 1, 4, 0, 1})[4], 0.0f);
  options.dry_sequence_breakers = {"\n"};
  EXPECT_EQ(after(options, vocabulary, {0, 1, 4, 0, 1})[4], 0.0f);
}

}  // namespace
}  // namespace mneme
