#include "context/merged_kv.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "context/kv_example.h"
#include "context/kv_policy.h"

namespace mneme {
namespace {

constexpr uint32_t kBatch = 128;

/// Two layers of one sequence, as a model with two layers makes them, and what goes through them.
struct Pair {
  std::unique_ptr<KvLayer> lower, upper;

  Pair(std::string_view policy, const KvShape& shape, Ledger& ledger) {
    const KvPolicy parsed = KvPolicy::parse(policy);
    std::shared_ptr<MergedPair> pair;
    const bool merged = parsed.choices().sharing.has_value();
    lower = parsed.make_layer(shape, 4096, kBatch, ledger, {merged ? KvPlace::Role::kLower : KvPlace::Role::kAlone, &pair});
    upper = parsed.make_layer(shape, 4096, kBatch, ledger, {merged ? KvPlace::Role::kUpper : KvPlace::Role::kAlone, &pair});
  }
  const MergedPair& pair() const { return static_cast<const MergedKv&>(*upper).pair(); }
};

/// A lower layer of random keys and values and an upper one that is like it: cosine about 0.65, but for some tokens that point the
/// other way, and other norms.
struct Similar {
  KvExample a, b;

  Similar(const KvShape& shape, size_t n_tokens, float cosine = 0.65f) : a(shape, 4, n_tokens), b(shape, 4, n_tokens) {
    PhiloxStream random(31);
    const auto mix = [&](std::vector<float>& upper, const std::vector<float>& lower, size_t width) {
      for (size_t t = 0; t < n_tokens; ++t) {
        const float c = t % 50 == 17 ? -0.6f : cosine, s = std::sqrt(1 - c * c);
        const float norm = std::exp(0.3f * random.next_normal());
        for (size_t i = t * width; i < (t + 1) * width; ++i) upper[i] = norm * (c * lower[i] + s * random.next_normal());
      }
    };
    mix(b.k, a.k, shape.n_kv_heads * shape.key_dim);
    mix(b.v, a.v, shape.n_kv_heads * shape.value_dim);
  }

  /// Feeds both layers in passes; the outputs of both, one behind the other.
  std::vector<float> run(Pair& pair, const std::vector<size_t>& chunks) const {
    std::vector<float> lower, upper;
    size_t first = 0;
    for (size_t i = 0; first < a.n_tokens; ++i) {
      const size_t n = std::min(chunks[i % chunks.size()], a.n_tokens - first);
      const auto x = a.feed(*pair.lower, first, n), y = b.feed(*pair.upper, first, n);
      lower.insert(lower.end(), x.begin(), x.end());
      upper.insert(upper.end(), y.begin(), y.end());
      first += n;
    }
    lower.insert(lower.end(), upper.begin(), upper.end());
    return lower;
  }
};

TEST(MergedKv, LayersOfOneDirectionComeBack) {
  Similar s({2, 32, 32, 0}, 600);
  for (size_t i = 0; i < s.a.k.size(); ++i) s.b.k[i] = 3 * s.a.k[i];
  for (size_t i = 0; i < s.a.v.size(); ++i) s.b.v[i] = 0.5f * s.a.v[i];
  Ledger ledger;
  Pair merged("minicache", s.a.shape, ledger), plain("f16", s.a.shape, ledger);
  EXPECT_LT(relative_difference(s.run(merged, {100}), s.run(plain, {100})), 2e-3);  // f16 twice
  EXPECT_GT(merged.pair().n_blocks(), 5);
}

TEST(MergedKv, AttendsToWhatItDecodes) {
  // The decoded blocks are fed to plain stores in place of the vectors; the newest tokens are the same. Queries of the last
  // tokens, behind everything that is sealed, must see no difference.
  const Similar s({2, 32, 48, 0}, 500);
  for (const char* policy : {"minicache", "minicache+kivi:4", "minicache+token:4"}) {
    SCOPED_TRACE(policy);
    Ledger ledger;
    Pair merged(policy, s.a.shape, ledger), plain("f32", s.a.shape, ledger);
    const auto got = s.run(merged, {100});
    Similar decoded = s;
    for (size_t layer = 0; layer < 2; ++layer) {
      KvExample& e = layer == 0 ? decoded.a : decoded.b;
      for (int64_t block = 0; block < merged.pair().n_blocks(); ++block) {
        merged.pair().decode(block, layer, e.k.data() + block * 64 * 2 * 32, e.v.data() + block * 64 * 2 * 48);
      }
    }
    const auto want = decoded.run(plain, {100});
    const size_t half = got.size() / 2, width = s.a.width();
    for (const size_t end : {half, got.size()}) {
      for (size_t i = end - 40 * width; i < end; ++i) ASSERT_NEAR(got[i], want[i], 2e-3);
    }
  }
}

TEST(MergedKv, ResultsDoNotDependOnPasses) {
  const Similar s({2, 64, 64, 0}, 500);
  for (const char* policy : {"minicache", "minicache+kivi:4"}) {
    SCOPED_TRACE(policy);
    Ledger ledger;
    Pair single(policy, s.a.shape, ledger), passes(policy, s.a.shape, ledger);
    const auto want = s.run(single, {1});
    EXPECT_EQ(s.run(passes, {128, 7, 1, 64}), want);
    CopyScope scope;
    const auto lower = passes.lower->copy(scope), upper = passes.upper->copy(scope);
    for (const size_t first : {0u, 100u, 200u}) {  // beyond the next seal
      EXPECT_EQ(s.a.feed(*passes.lower, first, 100), s.a.feed(static_cast<KvLayer&>(*lower), first, 100));
      EXPECT_EQ(s.b.feed(*passes.upper, first, 100), s.b.feed(static_cast<KvLayer&>(*upper), first, 100));
    }
  }
}

TEST(MergedKv, BytesAreThoseOfTheSpecAndTheFormula) {
  const KvShape shape{4, 128, 128, 0};
  const Similar s(shape, 700);
  for (const char* policy : {"minicache", "minicache+kivi:4"}) {
    SCOPED_TRACE(policy);
    Ledger ledger;
    Pair pair(policy, shape, ledger);
    const KvPolicy parsed = KvPolicy::parse(policy);
    for (size_t first = 0; first < 700; first += 100) {
      s.a.feed(*pair.lower, first, 100);
      s.b.feed(*pair.upper, first, 100);
      EXPECT_EQ(pair.lower->bytes(), parsed.spec(shape, 4096, kBatch, {KvPlace::Role::kLower}).bytes(first + 100));
      EXPECT_EQ(pair.upper->bytes(), parsed.spec(shape, 4096, kBatch, {KvPlace::Role::kUpper}).bytes(first + 100));
      EXPECT_EQ(ledger.used(Tier::kRam, Tag::kKv), pair.lower->bytes() + pair.upper->bytes());
    }
  }
  // A token of a pair in a block: one direction of C = 512 each for keys and values, 8 bytes of norms, and 2 of 64 tokens twice
  // whole: 2 * 2 C + 8 + 2 / 64 * 4 * 2 C + the token numbers, against 4 * 2 C.
  const uint64_t c = 512, block = 64 * (2 * 2 * c + 8) + 2 * 4 * 2 * c + 4;
  EXPECT_EQ(MergedPair::block_bytes(shape, KvChoices::parse("minicache")), block);
}

// The order of the paper: interpolation with t = 0.6 and the dissimilar tokens kept beats interpolation alone.
TEST(MergedKv, KeepingDissimilarTokensHelps) {
  const Similar s({2, 32, 32, 0}, 1000);
  Ledger ledger;
  Pair plain("f16", s.a.shape, ledger), kept("minicache", s.a.shape, ledger), alone("minicache:gamma=0.0001", s.a.shape, ledger);
  const auto want = s.run(plain, {100});
  EXPECT_LT(relative_difference(s.run(kept, {100}), want), relative_difference(s.run(alone, {100}), want));
}

TEST(MergedKv, OnlyNeighboursOfOneShapeArePaired) {
  const KvShape full{2, 64, 64, 0}, windowed{2, 64, 64, 128};
  const std::vector<std::optional<KvShape>> layers = {full, full, full, full, full, windowed, std::nullopt, full, full, full, full};
  using enum KvPlace::Role;
  EXPECT_EQ(KvPolicy::parse("minicache:start=0.1").roles(layers),
            (std::vector<KvPlace::Role>{kAlone, kAlone, kLower, kUpper, kAlone, kAlone, kAlone, kAlone, kLower, kUpper, kAlone}));
  EXPECT_EQ(KvPolicy::parse("kivi:2").roles(layers), std::vector<KvPlace::Role>(11, kAlone));
}

}  // namespace
}  // namespace mneme
