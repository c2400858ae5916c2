#include "context/dense_kv.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"
#include "base/philox.h"
#include "context/kv_policy.h"

namespace mneme {
namespace {

/// Random rows of a sequence and the attention over them in double.
struct Example {
  KvShape shape;
  size_t n_heads, n_tokens;
  std::vector<float> q, k, v;

  Example(KvShape s, size_t heads, size_t tokens) : shape(s), n_heads(heads), n_tokens(tokens) {
    PhiloxStream random(11);
    q.resize(tokens * heads * s.key_dim);
    k.resize(tokens * s.n_kv_heads * s.key_dim);
    v.resize(tokens * s.n_kv_heads * s.value_dim);
    for (auto* values : {&q, &k, &v}) {
      for (float& x : *values) x = random.next_normal();
    }
  }

  KvRows rows(size_t first, size_t n) const {
    const size_t ks = shape.n_kv_heads * shape.key_dim, vs = shape.n_kv_heads * shape.value_dim;
    return {k.data() + first * ks, v.data() + first * vs, ks, vs, n, nullptr, 0};
  }

  KvQueries queries(size_t first, size_t n) const {
    const size_t qs = n_heads * shape.key_dim;
    return {q.data() + first * qs, qs, n, n_heads, 1 / std::sqrt(static_cast<float>(shape.key_dim))};
  }

  std::vector<double> reference() const {
    std::vector<double> out(n_tokens * n_heads * shape.value_dim);
    for (size_t t = 0; t < n_tokens; ++t) {
      for (size_t h = 0; h < n_heads; ++h) {
        const size_t kv = h / (n_heads / shape.n_kv_heads);
        const size_t first = shape.window > 0 && t + 1 > shape.window ? t + 1 - shape.window : 0;
        std::vector<double> p;
        double sum = 0;
        for (size_t j = first; j <= t; ++j) {
          double dot = 0;
          for (size_t d = 0; d < shape.key_dim; ++d) {
            dot += static_cast<double>(q[(t * n_heads + h) * shape.key_dim + d]) *
                   k[(j * shape.n_kv_heads + kv) * shape.key_dim + d];
          }
          p.push_back(std::exp(dot / std::sqrt(static_cast<double>(shape.key_dim))));
          sum += p.back();
        }
        for (size_t j = first; j <= t; ++j) {
          for (size_t d = 0; d < shape.value_dim; ++d) {
            out[(t * n_heads + h) * shape.value_dim + d] +=
                p[j - first] / sum * v[(j * shape.n_kv_heads + kv) * shape.value_dim + d];
          }
        }
      }
    }
    return out;
  }

  std::vector<float> run(KvLayer& store, const std::vector<size_t>& chunks) const {
    const size_t width = n_heads * shape.value_dim;
    std::vector<float> out(n_tokens * width);
    size_t first = 0;
    for (size_t i = 0; first < n_tokens; ++i) {
      const size_t n = std::min(chunks[i % chunks.size()], n_tokens - first);
      store.append(rows(first, n));
      store.attend(queries(first, n), out.data() + first * width, width);
      first += n;
    }
    return out;
  }
};

void expect_near(const std::vector<float>& out, const std::vector<double>& want, double tolerance) {
  ASSERT_EQ(out.size(), want.size());
  size_t worst = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    if (std::abs(out[i] - want[i]) > std::abs(out[worst] - want[worst])) worst = i;
  }
  EXPECT_NEAR(out[worst], want[worst], tolerance) << "element " << worst;
}

TEST(DenseKv, MatchesTheReferenceForAnySplit) {
  for (const KvShape shape : {KvShape{2, 16, 16, 0}, KvShape{1, 20, 12, 0}, KvShape{2, 16, 16, 37}, KvShape{4, 8, 8, 300}}) {
    const Example example(shape, 4, 700);
    const auto want = example.reference();
    for (const std::vector<size_t>& chunks : {std::vector<size_t>{64}, {1}, {300, 7, 1}}) {
      Ledger ledger;
      DenseKv store(shape, DType::kF32, 1024, 300, ledger);
      expect_near(example.run(store, chunks), want, 2e-5);
      EXPECT_EQ(store.n_tokens(), 700);
      EXPECT_EQ(store.bytes(), DenseKv::spec(shape, DType::kF32, 1024, 300).bytes(700));
      EXPECT_EQ(ledger.used(Tier::kRam, Tag::kKv), store.bytes());
    }
  }
}

// f16 keeps 11 bits: scores move by |q||k| 2^-11 / sqrt(D) and values by 2^-11 of their size; bf16 keeps 8 bits.
TEST(DenseKv, HalfPrecisionStaysWithinItsEpsilon) {
  const KvShape shape{2, 32, 32, 0};
  const Example example(shape, 4, 300);
  const auto want = example.reference();
  for (const auto& [name, tolerance] : {std::pair("f16", 0.01), std::pair("bf16", 0.08)}) {
    Ledger ledger;
    const auto store = KvPolicy::parse(name).make_layer(shape, 512, 64, ledger);
    expect_near(example.run(*store, {64}), want, tolerance);
  }
}

TEST(DenseKv, DecodeOverManyBlocksIsTheSameOnAnyNumberOfThreads) {
  const KvShape shape{1, 16, 16, 0};
  const Example example(shape, 4, 2500);
  const int before = n_threads();
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 3}) {
    set_n_threads(threads);
    Ledger ledger;
    DenseKv store(shape, DType::kF16, 2560, 512, ledger);
    store.append(example.rows(0, 2500));
    std::vector<float> out(4 * 16);
    store.attend(example.queries(2499, 1), out.data(), 64);
    results.push_back(out);
  }
  set_n_threads(before);
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST(DenseKv, TruncateForgetsAndWindowsRefuseWhatTheyLost) {
  const KvShape full{2, 16, 16, 0}, windowed{2, 16, 16, 64};
  const Example example(full, 4, 1500);
  Ledger ledger;
  DenseKv once(full, DType::kF32, 2048, 256, ledger), twice(full, DType::kF32, 2048, 256, ledger);
  const auto want = example.run(once, {100});
  twice.append(example.rows(0, 900));
  ASSERT_TRUE(twice.truncate(300));
  EXPECT_EQ(twice.bytes(), DenseKv::spec(full, DType::kF32, 2048, 256).bytes(300));
  twice.append(example.rows(300, 1200));
  std::vector<float> out(64);
  twice.attend(example.queries(1499, 1), out.data(), 64);
  EXPECT_TRUE(std::equal(out.begin(), out.end(), want.end() - 64));
  EXPECT_FALSE(twice.truncate(1501));

  DenseKv ring(windowed, DType::kF32, 2048, 256, ledger);
  for (size_t first = 0; first < 1500; first += 250) ring.append(example.rows(first, 250));
  EXPECT_TRUE(ring.truncate(1450));
  EXPECT_FALSE(ring.truncate(100));
  EXPECT_EQ(ring.n_tokens(), 1450);
}

TEST(DenseKv, CopyIsIndependent) {
  const KvShape shape{2, 16, 16, 0};
  const Example example(shape, 4, 600);
  Ledger ledger;
  DenseKv store(shape, DType::kF16, 1024, 256, ledger);
  store.append(example.rows(0, 300));
  const auto copy = store.deep_copy();
  auto& branch = static_cast<KvLayer&>(*copy);
  store.append(example.rows(400, 50));
  branch.append(example.rows(300, 300));
  DenseKv straight(shape, DType::kF16, 1024, 256, ledger);
  straight.append(example.rows(0, 600));
  std::vector<float> a(64), b(64);
  branch.attend(example.queries(599, 1), a.data(), 64);
  straight.attend(example.queries(599, 1), b.data(), 64);
  EXPECT_EQ(a, b);
}

TEST(DenseKv, RefusesOverflowAndBudgetWithoutChange) {
  const KvShape shape{2, 16, 16, 0};
  const Example example(shape, 4, 600);
  Ledger ledger;
  DenseKv store(shape, DType::kF16, 512, 256, ledger);
  store.append(example.rows(0, 500));
  EXPECT_THROW(store.append(example.rows(500, 13)), Error);
  EXPECT_EQ(store.n_tokens(), 500);
  Ledger tight(40 << 10);
  DenseKv small(shape, DType::kF16, 512, 256, tight);
  small.append(example.rows(0, 200));
  EXPECT_THROW(small.append(example.rows(200, 100)), Error);
  EXPECT_EQ(small.n_tokens(), 200);
  EXPECT_EQ(tight.used(Tier::kRam), small.bytes());
  EXPECT_THROW(KvPolicy::parse("q3"), Error);
}

}  // namespace
}  // namespace mneme
