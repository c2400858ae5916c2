#include "context/shadow_kv.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "base/half.h"
#include "context/kv_example.h"
#include "context/kv_policy.h"

namespace mneme {
namespace {

constexpr KvShape kShape{2, 64, 48, 0};
constexpr const char* kSmall = "shadowkv:rank=24,fit=256,budget=64,outliers=32";
constexpr const char* kSmallOnDisk = "shadowkv:rank=24,fit=256,budget=64,outliers=32,values=disk";

std::unique_ptr<KvLayer> make(std::string_view policy, const KvShape& shape, Ledger& ledger) {
  return KvPolicy::parse(policy).make_layer(shape, 4096, 512, ledger);
}

const ShadowKv& shadow(const std::unique_ptr<KvLayer>& store) {
  return static_cast<const ShadowKv&>(*store);
}

double product(const float* a, const float* b, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

TEST(ShadowKv, WholeRankAndBudgetArePlain) {
  const KvExample example = hidden_state_example(kShape, 4, 900, 1);
  for (const char* policy :
       {"shadowkv:rank=128,fit=256,budget=100%", "shadowkv:rank=999,fit=256,budget=4096,values=disk"}) {
    SCOPED_TRACE(policy);
    Ledger ledger;
    const auto store = make(policy, kShape, ledger), plain = make("f16", kShape, ledger);
    const auto want = example.run(*plain, {100});
    std::vector<float> out;
    for (size_t first = 0; first < 600; first += 100) {
      const auto part = example.feed(*store, first, 100);
      out.insert(out.end(), part.begin(), part.end());
    }
    const auto generated = generate(example, *store, 600, 300);
    out.insert(out.end(), generated.begin(), generated.end());
    EXPECT_EQ(store->trouble(), "");
    EXPECT_LT(relative_difference(out, want), 1e-3);
  }
}

// Keys of 20 directions in a basis of 24: nothing may be lost, on either side of the rotation.
TEST(ShadowKv, KeysOfFewDirectionsComeBack) {
  KvExample example = hidden_state_example(kShape, 4, 700, 1);
  PhiloxStream random(9);
  std::vector<float> directions(20 * 128);
  for (float& x : directions) x = random.next_normal();
  for (size_t t = 0; t < 700; ++t) {
    std::fill_n(example.k.data() + t * 128, 128, 0.0f);
    for (size_t i = 0; i < 20; ++i) {
      const float factor = 0.2f * random.next_normal();
      for (size_t c = 0; c < 128; ++c) example.k[t * 128 + c] += factor * directions[i * 128 + c];
    }
  }
  Ledger ledger;
  const auto store = make(kSmall, kShape, ledger);
  example.run(*store, {128});
  const auto keys = example.rotated_keys();
  std::vector<float> decoded(64 * 64);
  for (const uint64_t block : {0u, 3u, 8u}) {  // fitted ones and a later one
    for (size_t head = 0; head < 2; ++head) {
      shadow(store).decode_keys(block, head, example.rope.get(), decoded.data());
      for (size_t i = 0; i < decoded.size(); ++i) {
        ASSERT_NEAR(decoded[i], keys[(block * 64 + i / 64) * 128 + head * 64 + i % 64], 5e-3)
            << block << " " << head << " " << i;
      }
    }
  }
}

TEST(ShadowKv, GeneratedTokensSeeTheChosenChunks) {
  const KvExample example = hidden_state_example(kShape, 4, 800, 2);
  for (const char* policy : {kSmall, kSmallOnDisk}) {
    SCOPED_TRACE(policy);
    Ledger ledger;
    const auto store = make(policy, kShape, ledger);
    for (size_t first = 0; first < 790; first += 79) example.feed(*store, first, 79);
    const auto out = generate(example, *store, 790, 1);
    constexpr size_t kSealed = (791 - 64) / 64 * 64;
    std::vector<float> keys(kSealed * 64);
    for (size_t head = 0; head < 2; ++head) {
      for (uint64_t b = 0; b < kSealed / 64; ++b) {
        shadow(store).decode_keys(b, head, example.rope.get(), keys.data() + b * 64 * 64);
      }
      const std::vector<int32_t> seen = shadow(store).seen_chunks(head);
      ASSERT_EQ(seen.size(), 8u + 2u);
      const auto exact = example.rotated_keys();
      for (size_t g = 0; g < 2; ++g) {
        const float* const q = example.q.data() + (790 * 4 + head * 2 + g) * 64;
        std::vector<double> want(48);
        double sum = 0;
        for (size_t t = 0; t < 791; ++t) {
          if (t < kSealed && !std::binary_search(seen.begin(), seen.end(), static_cast<int32_t>(t / 8))) continue;
          const float* const key = t < kSealed ? keys.data() + t * 64 : exact.data() + (t * 2 + head) * 64;
          const double p = std::exp(product(q, key, 64) / 8);
          sum += p;
          for (size_t d = 0; d < 48; ++d) want[d] += p * static_cast<double>(example.v[(t * 2 + head) * 48 + d]);
        }
        // Outliers have exact keys, so this is near but not equal.
        for (size_t d = 0; d < 48; ++d) EXPECT_NEAR(out[(head * 2 + g) * 48 + d], want[d] / sum, 0.05);
      }
    }
  }
}

TEST(ShadowKv, WithoutOutliersTheReferenceIsMetExactly) {
  const KvExample example = hidden_state_example(kShape, 4, 800, 2);
  Ledger ledger;
  const auto store = make("shadowkv:rank=128,fit=256,budget=64,outliers=0", kShape, ledger);
  for (size_t first = 0; first < 790; first += 79) example.feed(*store, first, 79);
  const auto out = generate(example, *store, 790, 1);
  const auto keys = example.rotated_keys();
  for (size_t h = 0; h < 4; ++h) {
    const std::vector<int32_t> seen = shadow(store).seen_chunks(h / 2);
    ASSERT_EQ(seen.size(), 8u);
    std::vector<double> want(48);
    double sum = 0;
    for (size_t t = 0; t < 791; ++t) {
      if (t < 704 && !std::binary_search(seen.begin(), seen.end(), static_cast<int32_t>(t / 8))) continue;
      const double p =
          std::exp(product(example.q.data() + (790 * 4 + h) * 64, keys.data() + (t * 2 + h / 2) * 64, 64) / 8);
      sum += p;
      for (size_t d = 0; d < 48; ++d) want[d] += p * static_cast<double>(example.v[(t * 2 + h / 2) * 48 + d]);
    }
    for (size_t d = 0; d < 48; ++d) EXPECT_NEAR(out[h * 48 + d], want[d] / sum, 2e-3);
  }
}

TEST(ShadowKv, ResultsDoNotDependOnChunksOrTiers) {
  KvExample example = hidden_state_example(kShape, 4, 700, 3);
  for (const TokenRole role : {TokenRole::kGiven, TokenRole::kGenerated}) {
    example.role = role;
    Ledger ledger;
    const auto one_by_one = make(kSmall, kShape, ledger), in_chunks = make(kSmall, kShape, ledger),
               at_once = make(kSmall, kShape, ledger), on_disk = make(kSmallOnDisk, kShape, ledger);
    const auto want = example.run(*one_by_one, {1});
    EXPECT_EQ(example.run(*in_chunks, {300, 7, 1, 64}), want);
    EXPECT_EQ(example.run(*at_once, {700}), want);
    EXPECT_EQ(example.run(*on_disk, {111}), want);
    EXPECT_EQ(one_by_one->bytes(), at_once->bytes());
  }
}

// The role changes what is seen, never what is kept.
TEST(ShadowKv, WhatIsKeptDoesNotDependOnRoles) {
  const KvExample example = hidden_state_example(kShape, 4, 700, 4);
  Ledger ledger;
  const auto given = make(kSmall, kShape, ledger), generated = make(kSmall, kShape, ledger);
  example.run(*given, {50});
  generate(example, *generated, 0, 600);
  for (size_t t = 600; t < 700; ++t) example.feed(*generated, t, 1);
  std::vector<float> a(64 * 64), b(64 * 64);
  for (uint64_t block = 0; block < 9; ++block) {
    shadow(given).decode_keys(block, 1, example.rope.get(), a.data());
    shadow(generated).decode_keys(block, 1, example.rope.get(), b.data());
    EXPECT_EQ(a, b);
  }
}

TEST(ShadowKv, BytesAreThoseOfTheSpecAndTheFormula) {
  const KvShape shape{2, 128, 128, 0};
  const KvExample example(shape, 2, 1000);
  for (const char* policy :
       {kSmall, kSmallOnDisk, "shadowkv:rank=160,fit=512,budget=20%", "shadowkv:rank=999,fit=256,residual=100"}) {
    SCOPED_TRACE(policy);
    const StateSpec spec = KvPolicy::parse(policy).spec(shape, 4096, 512);
    Ledger ledger;
    const auto store = make(policy, shape, ledger);
    for (size_t first = 0; first < 1000; first += 125) {
      example.feed(*store, first, 125);
      EXPECT_EQ(store->bytes(), spec.bytes(first + 125));
      EXPECT_EQ(ledger.used(Tier::kRam, Tag::kKv), store->bytes());
      EXPECT_EQ(ledger.used(Tier::kRam, Tag::kScratch), 0u);
    }
  }
  // 8 heads of 128 and 64 Ki tokens, values on disk: features, basis, landmarks of 8 bits with 4 bytes for 64 channels,
  // and exact rows of tail, slots (twice the budget) and outliers.
  const KvShape large{8, 128, 128, 0};
  const uint64_t tokens = 65536, sealed = tokens - 64;
  const StateSpec on_disk = KvPolicy::parse("shadowkv:rank=160,budget=1024,values=disk").spec(large, tokens, 512);
  const uint64_t formula = sealed * 160 * 2 + 160 * 1024 * 4 + sealed / 8 * (1024 + 1024 / 64 * 4) +
                           2 * 1024 * 2 * (128 + 2 * 1024 + 24 * 8) + 64 * 1024 * 2;  // one block of values on its way
  EXPECT_NEAR(static_cast<double>(on_disk.bytes(tokens)), static_cast<double>(formula), 10 * 4096);
  const double plain = static_cast<double>(KvPolicy::parse("f16").spec(large, tokens, 512).bytes(tokens));
  EXPECT_GT(plain / static_cast<double>(on_disk.bytes(tokens)), 6);
}

// What the paper observes of trained models, on generated hidden states.
TEST(ShadowKv, KeysHaveFewDirectionsBeforeRope) {
  const KvShape shape{2, 128, 128, 0};
  const KvExample example = hidden_state_example(shape, 2, 1280, 1, 0.9f),
                  other = hidden_state_example(shape, 2, 256, 77, 0.9f);
  const auto error = [&](const std::vector<float>& fitted, size_t n, const std::vector<float>& measured, size_t first,
                         size_t m) {
    SecondMoments fit(256), test(256);
    fit.add(fitted.data(), n);
    test.add(measured.data() + first * 256, m);
    std::vector<float> basis(40 * 256);
    fit.basis(40, basis.data());
    return test.error_of(basis.data(), 40);
  };
  const auto rotated = example.rotated_keys();
  const double own = error(example.k, 1024, example.k, 0, 1024), post = error(rotated, 1024, rotated, 0, 1024);
  EXPECT_LT(own, 0.5 * post);
  EXPECT_LT(error(example.k, 1024, example.k, 1024, 256), 1.5 * own);  // the same text goes on
  EXPECT_LT(own, error(other.k, 256, example.k, 0, 1024));             // another text's basis
}

/// Share of the exact attention to sealed tokens that the chosen chunks hold, over what the best chunks of equal number
/// would.
double seen_mass(const char* policy, bool odd_tokens) {
  constexpr size_t kTokens = 2048, kAsked = 40;
  const KvExample example = OddTokensExample(kTokens, odd_tokens).example;
  const auto keys = example.rotated_keys();
  Ledger ledger;
  const auto store = make(policy, example.shape, ledger);
  for (size_t first = 0; first < kTokens - kAsked; first += 502) example.feed(*store, first, 502);
  double seen = 0, best = 0;
  for (size_t t = kTokens - kAsked; t < kTokens; ++t) {
    generate(example, *store, t, 1);
    const std::vector<int32_t> chunks = shadow(store).seen_chunks(0);
    const size_t n_chunks = (t + 1 - 64) / 64 * 8;
    std::vector<double> mass(n_chunks);
    double total = 0;
    for (size_t j = 0; j < n_chunks * 8; ++j) {
      const double p = std::exp(product(&example.q[t * 256], &keys[j * 128], 128) / std::sqrt(128.0));
      mass[j / 8] += p;
      total += p;
    }
    for (const int32_t chunk : chunks) seen += mass[static_cast<size_t>(chunk)] / total;
    std::sort(mass.rbegin(), mass.rend());
    best += std::accumulate(mass.begin(), mass.begin() + static_cast<long>(chunks.size()), 0.0) / total;
  }
  return seen / best;
}

TEST(ShadowKv, ChosenChunksHoldTheAttention) {
  constexpr const char* kWith = "shadowkv:rank=40,budget=240,outliers=102,fit=512";  // 12 % and 24 chunks
  constexpr const char* kWithout = "shadowkv:rank=40,budget=240,outliers=0,fit=512";
  const double with = seen_mass(kWith, true);
  EXPECT_GT(seen_mass(kWith, false), 0.95);
  EXPECT_GT(with, 0.95);
  EXPECT_LT(seen_mass(kWithout, true), with - 0.1);
}

TEST(ShadowKv, CopiesAreIndependentAndTruncateReachesTheTailOnly) {
  const KvExample example = hidden_state_example(kShape, 4, 700, 5);
  for (const char* policy : {kSmall, kSmallOnDisk}) {
    SCOPED_TRACE(policy);
    Ledger ledger;
    const auto store = make(policy, kShape, ledger);
    for (size_t first = 0; first < 600; first += 100) example.feed(*store, first, 100);
    const auto copied = store->deep_copy();
    auto& copy = static_cast<KvLayer&>(*copied);
    EXPECT_EQ(copy.bytes(), store->bytes());
    const auto want = generate(example, *store, 600, 30);
    EXPECT_FALSE(store->truncate(500));
    EXPECT_TRUE(store->truncate(600));
    EXPECT_EQ(generate(example, *store, 600, 30), want);
    EXPECT_EQ(generate(example, copy, 600, 30), want);
  }
}

TEST(ShadowKv, NeighbouringQueriesFindTheirChunksInMemory) {
  const KvExample example = hidden_state_example(kShape, 4, 700, 6);
  Ledger ledger;
  const auto store = make(kSmallOnDisk, kShape, ledger);
  for (size_t first = 0; first < 600; first += 100) example.feed(*store, first, 100);
  generate(example, *store, 600, 1);
  const FetchCounts once = store->fetches();
  EXPECT_EQ(once.wanted, 2u * 8u);
  EXPECT_EQ(once.resident, 0u);
  EXPECT_GT(once.bytes, 0u);
  EXPECT_EQ(once.bytes % 4096, 0u);
  ASSERT_TRUE(store->truncate(600));
  generate(example, *store, 600, 1);
  EXPECT_EQ(store->fetches().resident, 2u * 8u);
  EXPECT_EQ(store->fetches().bytes, once.bytes);
}

// There are slots for twice the budget, and what was wanted longest ago goes first.
TEST(ShadowKv, SlotsKeepWhatTheLastTwoQueriesChose) {
  const KvExample example = hidden_state_example(kShape, 4, 700, 6);
  Ledger ledger;
  const auto store = make(kSmall, kShape, ledger);
  for (size_t first = 0; first < 600; first += 100) example.feed(*store, first, 100);
  /// Chunks that a query of its own, number i, does not find.
  const auto missed = [&](uint64_t i) {
    KvExample next = example;
    PhiloxStream random(100 + i);
    for (float& x : next.q) x = 3 * random.next_normal();
    const FetchCounts before = store->fetches();
    generate(next, *store, 600, 1);
    EXPECT_TRUE(store->truncate(600));
    FetchCounts step = store->fetches();
    step -= before;
    EXPECT_EQ(step.wanted, 2u * 8u);
    return step.wanted - step.resident;
  };
  EXPECT_EQ(missed(1), 2u * 8u);
  EXPECT_GT(missed(2), 0u);
  EXPECT_EQ(missed(1), 0u);
  EXPECT_GT(missed(3), 0u);
  EXPECT_EQ(missed(1), 0u) << "number 2 had to go";
  EXPECT_GT(missed(2), 0u);
}

TEST(ShadowKv, AFileThatCannotBeReadIsNamed) {
  const KvExample example = hidden_state_example(kShape, 4, 700, 7);
  for (const TokenRole role : {TokenRole::kGenerated, TokenRole::kGiven}) {
    Ledger ledger;
    const auto store = make(kSmallOnDisk, kShape, ledger);
    for (size_t first = 0; first < 600; first += 100) example.feed(*store, first, 100);
    ASSERT_EQ(::ftruncate(shadow(store).descriptor(), 0), 0);
    KvExample next = example;
    next.role = role;
    const auto out = next.feed(*store, 600, 1);
    EXPECT_NE(store->trouble().find(role == TokenRole::kGiven ? "tokens 0 to" : "kv head 0, chunk"), std::string::npos)
        << store->trouble();
    EXPECT_EQ(out, std::vector<float>(out.size(), 0.0f));
    next.feed(*store, 601, 99);  // goes on without harm
    EXPECT_EQ(store->n_tokens(), 700);
    EXPECT_FALSE(store->truncate(650));
  }
}

TEST(ShadowKv, KeysThatAreNotNumbersAreRefused) {
  KvExample example = hidden_state_example(kShape, 4, 500, 8);
  example.k[1000] = std::nanf("");
  Ledger ledger;
  const auto store = make(kSmall, kShape, ledger);
  example.run(*store, {100});
  EXPECT_NE(store->trouble().find("finite"), std::string::npos);
}

}  // namespace
}  // namespace mneme
