#include "context/instinfer_kv.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
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
constexpr const char* kSmall = "instinfer:density=1/8,channels=32,residual=16";  // blocks of 64 tokens

std::unique_ptr<KvLayer> make(std::string_view policy, const KvShape& shape, Ledger& ledger) {
  return KvPolicy::parse(policy).make_layer(shape, 4096, 512, ledger);
}

const InstInferKv& near_data(const std::unique_ptr<KvLayer>& store) {
  return static_cast<const InstInferKv&>(*store);
}

void give(const KvExample& example, KvLayer& store, size_t n) {
  for (size_t first = 0; first < n; first += 100) example.feed(store, first, std::min<size_t>(100, n - first));
}

double rounded(float x) { return static_cast<double>(f16_to_f32(f32_to_f16(x))); }

/// SparF as the paper writes it, for one kv head at position t: the chosen tokens of the first `old`, and the outputs
/// [group, value_dim]. Keys and values are rounded to f16, everything else is double.
struct Reference {
  std::vector<uint32_t> chosen;
  std::vector<double> out;

  Reference(const KvExample& e, size_t head, size_t t, size_t old, double density) {
    const size_t dim = e.shape.key_dim, width = e.shape.value_dim, n_kv = e.shape.n_kv_heads, group = e.n_heads / n_kv;
    const size_t all = t + 1;
    const auto r = static_cast<size_t>(std::ceil(density * static_cast<double>(dim))),
               k = static_cast<size_t>(std::ceil(density * static_cast<double>(old)));
    const std::vector<float> keys = e.rotated_keys();
    const auto key = [&](size_t j, size_t c) { return rounded(keys[(j * n_kv + head) * dim + c]); };
    const auto value = [&](size_t j, size_t c) { return rounded(e.v[(j * n_kv + head) * width + c]); };
    const auto query = [&](size_t g, size_t c) {
      return static_cast<double>(e.q[(t * e.n_heads + head * group + g) * dim + c]);
    };
    const auto order_by = [](const std::vector<double>& worth) {
      std::vector<uint32_t> order(worth.size());
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return worth[a] > worth[b]; });
      return order;
    };
    const auto softmax = [](std::vector<double> x) {
      const double most = *std::max_element(x.begin(), x.end());
      double sum = 0;
      for (double& y : x) sum += y = std::exp(y - most);
      for (double& y : x) y /= sum;
      return x;
    };
    std::vector<double> sizes(dim, 0.0), worth(old, 0.0), mean(width, 0.0);
    for (size_t g = 0; g < group; ++g) {
      for (size_t c = 0; c < dim; ++c) sizes[c] += std::abs(query(g, c));
    }
    std::vector<uint32_t> channels = order_by(sizes);
    channels.resize(r);
    std::vector<std::vector<double>> guesses;
    for (size_t g = 0; g < group; ++g) {
      double norm = 0, part = 0;
      for (size_t c = 0; c < dim; ++c) norm += std::abs(query(g, c));
      for (const uint32_t c : channels) part += std::abs(query(g, c));
      std::vector<double> logits(all, 0.0);
      for (size_t j = 0; j < all; ++j) {
        for (const uint32_t c : channels) logits[j] += query(g, c) * key(j, c);
        logits[j] /= std::sqrt(static_cast<double>(dim) * part / norm);
      }
      guesses.push_back(softmax(logits));
      for (size_t j = 0; j < old; ++j) worth[j] += guesses.back()[j];
    }
    chosen = order_by(worth);
    chosen.resize(k);
    std::sort(chosen.begin(), chosen.end());
    std::vector<uint32_t> seen = chosen;
    for (size_t j = old; j < all; ++j) seen.push_back(static_cast<uint32_t>(j));
    for (size_t c = 0; c < width; ++c) {
      for (size_t j = 0; j < all; ++j) mean[c] += value(j, c) / static_cast<double>(all);
    }
    for (size_t g = 0; g < group; ++g) {
      double alpha = 0;
      std::vector<double> logits;
      for (const uint32_t j : seen) {
        alpha += guesses[g][j];
        double dot = 0;
        for (size_t c = 0; c < dim; ++c) dot += query(g, c) * key(j, c);
        logits.push_back(dot / std::sqrt(static_cast<double>(dim)));
      }
      const std::vector<double> p = softmax(logits);
      for (size_t c = 0; c < width; ++c) {
        double sum = 0;
        for (size_t i = 0; i < seen.size(); ++i) sum += p[i] * value(seen[i], c);
        out.push_back(alpha * sum + (1 - alpha) * mean[c]);
      }
    }
  }
};

TEST(InstInfer, GeneratedTokensGetTheAttentionOfThePaper) {
  const KvExample example = hidden_state_example(kShape, 4, 800, 2);
  for (const char* policy : {kSmall, "instinfer:density=0.3,channels=8,residual=16"}) {
    SCOPED_TRACE(policy);
    Ledger ledger;
    const auto store = make(policy, kShape, ledger);
    give(example, *store, 790);
    const auto out = generate(example, *store, 790, 10);
    const size_t block = near_data(store).layout().block_tokens, old = (799 - 16) / block * block;
    for (size_t head = 0; head < 2; ++head) {
      const Reference want(example, head, 799, old, policy == kSmall ? 0.125 : 0.3);
      EXPECT_EQ(near_data(store).chosen_tokens(head), want.chosen);
      EXPECT_LT(want.chosen.size(), old);
      for (size_t i = 0; i < want.out.size(); ++i) {
        EXPECT_NEAR(out[(9 * 4 + head * 2) * 48 + i], want.out[i], 2e-3) << head << " " << i;
      }
    }
  }
}

// A logit without a value takes its part of the attention, and of what was not seen.
TEST(InstInfer, SinksTakePart) {
  const KvExample example = hidden_state_example(kShape, 4, 700, 2);
  const std::vector<float> sinks = {3, 0.5f, -2, 4};
  const auto run = [&](const char* policy) {
    Ledger ledger;
    const auto store = make(policy, kShape, ledger);
    give(example, *store, 699);
    KvQueries queries = example.queries(699);
    queries.role = TokenRole::kGenerated;
    queries.sinks = sinks.data();
    std::vector<float> out(example.width());
    store->reserve(1);
    store->extend(example.rows(699, 1), queries, out.data(), out.size());
    return out;
  };
  const auto plain = run("f16");
  EXPECT_LT(relative_difference(run("instinfer:density=1"), plain), 1e-3);
  EXPECT_LT(relative_difference(run("instinfer:density=0.9999,channels=32,residual=16"), plain), 1e-3);
  EXPECT_LT(relative_difference(run("instinfer:density=0.5,channels=32,residual=16"), plain), 0.3);
}

TEST(InstInfer, DensityOneIsPlain) {
  const KvExample example = hidden_state_example(kShape, 4, 600, 1);
  // Dense attention, and SparF that looks at everything.
  for (const char* policy : {"instinfer:density=1", "instinfer:density=1,channels=32,residual=16",
                             "instinfer:density=0.99999,channels=32,residual=16", "instinfer:disk,density=0.99999"}) {
    SCOPED_TRACE(policy);
    Ledger ledger;
    const auto store = make(policy, kShape, ledger), plain = make("f16", kShape, ledger);
    const auto want = example.run(*plain, {64});
    std::vector<float> out;
    for (const size_t part : {1, 14, 1, 1, 238, 1, 1}) {  // to 257, in given and generated tokens by turns
      const size_t first = static_cast<size_t>(store->n_tokens());
      const auto piece = part == 1 ? generate(example, *store, first, 1) : example.feed(*store, first, part);
      out.insert(out.end(), piece.begin(), piece.end());
    }
    const auto rest = generate(example, *store, 257, 343);
    out.insert(out.end(), rest.begin(), rest.end());
    EXPECT_EQ(store->trouble(), "");
    EXPECT_LT(relative_difference(out, want), 1e-3);
    for (size_t t = 0; t < 600; ++t) {
      const auto row = [&](const std::vector<float>& x) {
        return std::vector<float>(x.begin() + static_cast<long>(t * 192), x.begin() + static_cast<long>((t + 1) * 192));
      };
      ASSERT_LT(relative_difference(row(out), row(want)), 2e-3) << t;
    }
  }
}

TEST(InstInfer, ResultsDoNotDependOnChunks) {
  KvExample example = hidden_state_example(kShape, 4, 300, 3);
  for (const TokenRole role : {TokenRole::kGiven, TokenRole::kGenerated}) {
    example.role = role;
    Ledger ledger;
    const auto one_by_one = make(kSmall, kShape, ledger), in_chunks = make(kSmall, kShape, ledger),
               at_once = make(kSmall, kShape, ledger);
    const auto want = example.run(*one_by_one, {1});
    EXPECT_EQ(example.run(*in_chunks, {130, 7, 1, 64}), want);
    EXPECT_EQ(example.run(*at_once, {300}), want);
  }
}

TEST(InstInfer, BytesAreThoseOfTheSpecAndTheFormula) {
  const KvShape shape{8, 128, 128, 0, 16};
  const PageGroups layout(shape, 8, true);
  EXPECT_EQ(layout.group_tokens, 16u);
  EXPECT_EQ(layout.block_bytes(), 256u * 8 * 6 * 128);  // 1.5 times keys and values: nothing is padded
  EXPECT_EQ(PageGroups(shape, 8, false).block_bytes(), 256u * 8 * 4 * 128);
  const PageGroups padded({1, 80, 80, 0}, 16, true);  // 16 tokens of 160 bytes a page; 5 pages of channels
  EXPECT_EQ(padded.group_tokens, 16u);
  EXPECT_EQ(padded.block_bytes(), (128u / 16 * 2 + 5) * 4096);

  for (const char* policy : {"instinfer", "instinfer:density=1", "instinfer:density=1/4,channels=16,residual=100"}) {
    SCOPED_TRACE(policy);
    const KvPolicy parsed = KvPolicy::parse(policy);
    const KvExample example(shape, 16, 880);
    Ledger ledger;
    const auto store = parsed.make_layer(shape, 880, 128, ledger);
    const StateSpec spec = parsed.spec(shape, 880, 128);
    uint64_t most = 0;
    for (const size_t part : {100, 100, 100, 100, 100, 100, 100, 100, 75, 1, 2, 2}) {
      KvExample next = example;
      if (part < 10) next.role = TokenRole::kGenerated;
      const auto first = static_cast<size_t>(store->n_tokens());
      std::vector<float> out(part * next.width());
      store->reserve(part);
      most = std::max(most, ledger.used(Tier::kRam));
      store->extend(next.rows(first, part), next.queries(first), out.data(), next.width());
      EXPECT_EQ(store->bytes(), spec.bytes(first + part));
      EXPECT_EQ(ledger.used(Tier::kRam), store->bytes());
      EXPECT_EQ(ledger.used(Tier::kDisk), parsed.disk_bytes(shape, first + part));
    }
    EXPECT_LE(most, spec.bytes(880) + parsed.working_bytes(shape, 880));
    EXPECT_GT(most, spec.bytes(880));
    EXPECT_EQ(store->trouble(), "");
  }
}

TEST(InstInfer, TheMeanIsThatOfAllValues) {
  const KvExample example = hidden_state_example(kShape, 4, 700, 4);
  Ledger ledger;
  const auto store = make(kSmall, kShape, ledger);
  give(example, *store, 700);
  constexpr size_t kOld = (700 - 16) / 64 * 64;
  for (size_t head = 0; head < 2; ++head) {
    for (size_t c = 0; c < 48; ++c) {
      double mean = 0;
      for (size_t t = 0; t < kOld; ++t) mean += rounded(example.v[(t * 2 + head) * 48 + c]) / kOld;
      EXPECT_NEAR(near_data(store).mean_value(head)[c], mean, 1e-5);
    }
  }
}

// Two steps of reading: some pages of all, and of their bytes what formulas say.
TEST(InstInfer, ReadsAreCounted) {
  const KvExample example = hidden_state_example({2, 128, 128, 0}, 4, 2100, 5);
  Ledger ledger;
  const auto store = make("instinfer:density=1/8", example.shape, ledger);
  give(example, *store, 2099);
  const FetchCounts before = store->fetches();
  generate(example, *store, 2099, 1);
  FetchCounts step = store->fetches();
  step -= before;
  constexpr uint64_t kOld = (2099 - 64) / 256 * 256, kR = 16, kK = kOld / 8;
  EXPECT_EQ(step.passed, 2 * (kR * kOld * 2 + kK * 2 * 128 * 2));
  EXPECT_EQ(step.bytes, step.wanted * 4096);
  EXPECT_EQ(step.resident, 0u);
  const uint64_t all_channels = 2 * kOld * 128 * 2, all_tokens = 2 * all_channels;
  EXPECT_LT(step.bytes, (all_channels + all_tokens) * 3 / 4);
  EXPECT_GT(step.bytes, step.passed);
}

TEST(InstInfer, CopiesAreIndependentAndTruncateReachesTheTailOnly) {
  const KvExample example = hidden_state_example(kShape, 4, 700, 5);
  for (const char* policy : {kSmall, "instinfer:density=1,channels=32,residual=16"}) {
    SCOPED_TRACE(policy);
    Ledger ledger;
    const auto store = make(policy, kShape, ledger);
    give(example, *store, 600);
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

TEST(InstInfer, AFileThatCannotBeReadIsNamed) {
  const KvExample example = hidden_state_example(kShape, 4, 700, 7);
  for (const TokenRole role : {TokenRole::kGenerated, TokenRole::kGiven}) {
    Ledger ledger;
    const auto store = make(kSmall, kShape, ledger);
    give(example, *store, 600);
    const uint64_t block = near_data(store).layout().block_bytes();
    ASSERT_EQ(::ftruncate(near_data(store).descriptor(), static_cast<off_t>(3 * block)), 0);
    KvExample next = example;
    next.role = role;
    const auto out = next.feed(*store, 600, 1);
    EXPECT_EQ(store->trouble(), "[read keys and values] kv head 0, tokens 192 to 255: the file ends before them");
    EXPECT_EQ(out, std::vector<float>(out.size(), 0.0f));
    next.feed(*store, 601, 99);  // goes on without harm
    EXPECT_EQ(store->n_tokens(), 700);
    EXPECT_FALSE(store->truncate(650));
  }
}

TEST(InstInfer, AFullDiskEndsTheSequence) {
  const KvExample example = hidden_state_example(kShape, 4, 300, 7);
  Ledger ledger;
  const auto store = make(kSmall, kShape, ledger);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{1 << 20, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  give(example, *store, 300);
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, handler);
  EXPECT_NE(store->trouble().find("[keep keys and values] expected room"), std::string::npos) << store->trouble();
  EXPECT_EQ(store->n_tokens(), 300);
  EXPECT_EQ(ledger.used(Tier::kDisk), 0u);
}

TEST(InstInfer, HeadsThatNoPageHoldsAreRefused) {
  EXPECT_THROW(KvPolicy::parse("instinfer").spec({1, 4096, 64, 0}, 100, 10), Error);
}

}  // namespace
}  // namespace mneme
