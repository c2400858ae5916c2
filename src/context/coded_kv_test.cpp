#include "context/coded_kv.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/half.h"
#include "context/dense_kv.h"
#include "context/kv_example.h"
#include "context/kv_policy.h"

namespace mneme {
namespace {

constexpr const char* kPolicies[] = {"kivi:2",        "kivi:4,group=64",     "kivi:8,residual=32", "token:3",
                                     "bfp:4",         "bfp:8,sort=off",      "think:0.5",          "think:0.25+kivi:4",
                                     "kivi:2,keys=token,values=channel", "think:0.5+token:4,residual=1"};

std::unique_ptr<KvLayer> make(std::string_view policy, const KvShape& shape, Ledger& ledger) {
  return KvPolicy::parse(policy).make_layer(shape, 4096, 512, ledger);
}

float through_f16(float x) { return f16_to_f32(f32_to_f16(x)); }

/// Attention of every token over what the store is to show it: blocks decoded by the store where they were sealed before the
/// token, f16 elsewhere.
std::vector<double> attention_over_stored(const KvExample& e, const CodedKv& store, uint32_t residual) {
  const KvShape& s = e.shape;
  const auto n_sealed = static_cast<size_t>(e.n_tokens > residual ? (e.n_tokens - residual) / 64 : 0);
  std::vector<float> keys(n_sealed * 64 * s.key_dim), values(n_sealed * 64 * s.value_dim);
  std::vector<double> out(e.n_tokens * e.n_heads * s.value_dim);
  for (size_t h = 0; h < e.n_heads; ++h) {
    const size_t kv = h / (e.n_heads / s.n_kv_heads);
    for (size_t b = 0; b < n_sealed; ++b) {
      store.decode(static_cast<int64_t>(b), kv, keys.data() + b * 64 * s.key_dim, values.data() + b * 64 * s.value_dim);
    }
    for (size_t t = 0; t < e.n_tokens; ++t) {
      const size_t sealed = t > residual ? (t - residual) / 64 * 64 : 0;
      std::vector<double> p(t + 1);
      double sum = 0;
      const auto key = [&](size_t j, size_t d) {
        return j < sealed ? keys[j * s.key_dim + d] : through_f16(e.k[(j * s.n_kv_heads + kv) * s.key_dim + d]);
      };
      for (size_t j = 0; j <= t; ++j) {
        double dot = 0;
        for (size_t d = 0; d < s.key_dim; ++d) dot += static_cast<double>(e.q[(t * e.n_heads + h) * s.key_dim + d]) * key(j, d);
        sum += p[j] = std::exp(dot / std::sqrt(static_cast<double>(s.key_dim)));
      }
      for (size_t j = 0; j <= t; ++j) {
        for (size_t d = 0; d < s.value_dim; ++d) {
          const float v = j < sealed ? values[j * s.value_dim + d] : through_f16(e.v[(j * s.n_kv_heads + kv) * s.value_dim + d]);
          out[(t * e.n_heads + h) * s.value_dim + d] += p[j] / sum * v;
        }
      }
    }
  }
  return out;
}

TEST(CodedKv, AttendsToWhatItStored) {
  for (const KvShape shape : {KvShape{2, 32, 48, 0}, KvShape{1, 80, 80, 0}}) {
    const KvExample example(shape, 4, 230);
    for (const char* policy : kPolicies) {
      SCOPED_TRACE(policy);
      Ledger ledger;
      const auto store = make(policy, shape, ledger);
      const auto out = example.run(*store, {50});
      const auto want = attention_over_stored(example, static_cast<const CodedKv&>(*store), KvChoices::parse(policy).residual);
      double worst = 0;
      for (size_t i = 0; i < out.size(); ++i) worst = std::max(worst, std::abs(out[i] - want[i]));
      EXPECT_LT(worst, 5e-4);
    }
  }
}

TEST(CodedKv, ResultsDoNotDependOnChunks) {
  const KvShape shape{2, 64, 64, 0};
  const KvExample example(shape, 4, 500);
  for (const char* policy : kPolicies) {
    SCOPED_TRACE(policy);
    Ledger ledger;
    const auto one_by_one = make(policy, shape, ledger), in_chunks = make(policy, shape, ledger),
               at_once = make(policy, shape, ledger);
    const auto want = example.run(*one_by_one, {1});
    EXPECT_EQ(example.run(*in_chunks, {300, 7, 1, 64}), want);
    EXPECT_EQ(example.run(*at_once, {500}), want);
    EXPECT_EQ(one_by_one->bytes(), at_once->bytes());
  }
}

TEST(CodedKv, NothingSealedIsThePlainStore) {
  const KvShape shape{2, 64, 64, 0};
  const KvExample example(shape, 4, 600);
  for (const char* policy : {"kivi:2,residual=600", "think:0.5,residual=1000"}) {
    Ledger ledger;
    const auto store = make(policy, shape, ledger), plain = make("f16", shape, ledger);
    EXPECT_EQ(example.run(*store, {100}), example.run(*plain, {100})) << policy;
  }
}

TEST(CodedKv, BytesAreThoseOfTheSpecAndTheFormula) {
  const KvShape shape{2, 128, 128, 0};
  const KvExample example(shape, 2, 1000);
  for (const char* policy : kPolicies) {
    SCOPED_TRACE(policy);
    const KvPolicy parsed = KvPolicy::parse(policy);
    const StateSpec spec = parsed.spec(shape, 4096, 512);
    Ledger ledger;
    const auto store = make(policy, shape, ledger);
    for (size_t first = 0; first < 1000; first += 125) {
      example.feed(*store, first, 125);
      EXPECT_EQ(store->bytes(), spec.bytes(first + 125));
      EXPECT_EQ(ledger.used(Tier::kRam, Tag::kKv), store->bytes());
    }
  }
  // Two bits in groups of 32: 0.25 + 4 / 32 bytes a value in sealed blocks, 2 in the tail of R + 64 tokens.
  const StateSpec kivi = KvPolicy::parse("kivi:2").spec(shape, 4096, 512);
  const uint64_t values = 2 * 2 * 128, sealed = (4096 - 64) / 64 * 64;
  EXPECT_EQ(kivi.bytes(4096), values * (sealed * 3 / 8 + (64 + 64) * 2));
  const double plain = static_cast<double>(KvPolicy::parse("f16").spec(shape, 4096, 512).bytes(4096));
  EXPECT_GT(plain / static_cast<double>(kivi.bytes(4096)), 4.5);
  const double at_32k = static_cast<double>(KvPolicy::parse("kivi:2").spec(shape, 32768, 512).bytes(32768));
  EXPECT_LT(at_32k / static_cast<double>(KvPolicy::parse("f16").spec(shape, 32768, 512).bytes(32768)), 0.20);
}

TEST(CodedKv, CopiesAreIndependentAndTruncateReachesTheTailOnly) {
  const KvShape shape{2, 64, 64, 0};
  const KvExample example(shape, 4, 700);
  for (const char* policy : {"kivi:2", "think:0.5+kivi:4", "bfp:4"}) {
    SCOPED_TRACE(policy);
    Ledger ledger;
    const auto store = make(policy, shape, ledger), straight = make(policy, shape, ledger);
    const auto want = example.run(*straight, {100});
    example.feed(*store, 0, 450);
    const auto copy = store->deep_copy();
    EXPECT_EQ(copy->bytes(), store->bytes());
    example.feed(*store, 500, 100);
    auto& branch = static_cast<KvLayer&>(*copy);
    // 450 tokens: 384 are sealed.
    EXPECT_FALSE(branch.truncate(383));
    EXPECT_FALSE(branch.truncate(451));
    if (policy == std::string_view("kivi:2")) {  // what ThinK remembers of queries goes on
      ASSERT_TRUE(branch.truncate(400));
      // Up to token 447 more is sealed than a fresh sequence would have; from there on it is the same.
      const auto out = example.feed(branch, 400, 300);
      EXPECT_TRUE(std::equal(out.begin() + 48 * 256, out.end(), want.begin() + 448 * 256));
      EXPECT_EQ(branch.bytes(), straight->bytes());
    } else {
      const auto out = example.feed(branch, 450, 250);
      EXPECT_TRUE(std::equal(out.begin(), out.end(), want.begin() + 450 * 256));
    }
  }
}

TEST(CodedKv, RefusesOverflowBudgetAndHeadsThatDoNotFit) {
  const KvShape shape{2, 64, 64, 0};
  const KvExample example(shape, 2, 600);
  Ledger ledger;
  const auto store = KvPolicy::parse("kivi:2").make_layer(shape, 512, 256, ledger);
  example.feed(*store, 0, 500);
  EXPECT_THROW(store->reserve(13), Error);
  EXPECT_EQ(store->n_tokens(), 500);
  Ledger tight(KvPolicy::parse("kivi:2").spec(shape, 4096, 256).bytes(256));
  const auto small = KvPolicy::parse("kivi:2").make_layer(shape, 4096, 256, tight);
  example.feed(*small, 0, 250);
  EXPECT_THROW(small->reserve(250), Error);
  EXPECT_EQ(small->n_tokens(), 250);
  EXPECT_THROW(KvPolicy::parse("think:0.5").spec({1, 320, 320, 0}, 512, 64), Error);
  // Layers with a sliding window stay plain.
  EXPECT_EQ(KvPolicy::parse("kivi:2").spec({2, 64, 64, 100}, 4096, 64).bytes(4096),
            KvPolicy::parse("f16").spec({2, 64, 64, 100}, 4096, 64).bytes(4096));
}

double error_of_policy(const KvExample& e, std::string_view policy) {
  Ledger ledger;
  const auto store = make(policy, e.shape, ledger), plain = make("f16", e.shape, ledger);
  return relative_difference(e.run(*store, {64}), e.run(*plain, {64}));
}

// The claims of the papers in small: keys want groups per channel, and sorting channels helps block floating point unless one
// block holds the whole head.
TEST(CodedKv, OrientationAndSortingMatterWithOutlierChannels) {
  const KvExample example = outlier_example(1024);
  const double kivi = error_of_policy(example, "kivi:2");
  EXPECT_LT(kivi, 0.5 * error_of_policy(example, "token:2"));
  EXPECT_LT(error_of_policy(example, "kivi:4"), 0.3 * kivi);
  EXPECT_LT(error_of_policy(example, "bfp:4"), 0.8 * error_of_policy(example, "bfp:4,sort=off"));
  EXPECT_NEAR(error_of_policy(example, "bfp:4,block=128"), error_of_policy(example, "bfp:4,block=128,sort=off"), 1e-6);
}

// Half of the channels carry nothing: ThinK finds them, and drops nothing that counts.
TEST(CodedKv, PruningFindsTheChannelsThatDoNotMatter) {
  KvExample e({2, 64, 64, 0}, 4, 600);
  for (size_t t = 0; t < 600; ++t) {
    for (size_t c = 0; c < 128; ++c) {
      if (c % 64 % 2 == 0) e.k[t * 128 + c] *= 1e-4f;
    }
  }
  EXPECT_LT(error_of_policy(e, "think:0.5"), 1e-3);
  EXPECT_GT(error_of_policy(e, "think:0.75"), 0.05);
}

}  // namespace
}  // namespace mneme
