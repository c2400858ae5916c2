#include <gtest/gtest.h>

#include "base/error.h"
#include "train/ops/attention.h"
#include "train/ops/linear.h"
#include "train/ops/op_harness.h"

namespace mneme::train {
namespace {

constexpr size_t kVocabulary = Harness::kVocabulary;
const RandomBatch kShort(kVocabulary, {0, 1, 4, 11}, 5);

TEST(OpGradients, EmbeddingAndCrossEntropy) {
  Harness([]() -> size_t { return 7; }(), [](auto&, auto&, ValueId x) { return std::pair(x, size_t{7}); }).check(kShort);
}

TEST(OpGradients, LinearWithThreeMatrices) {
  Harness harness(6, [](Program<double>& program, ParameterSet<double>& parameters, ValueId x) {
    std::vector<Parameter<double>*> weights;
    for (const char* name : {"a", "b", "c"}) weights.push_back(&parameters.add(name, Role::kAttention, 5, 6));
    const ValueId a = program.value("a", 5), b = program.value("b", 5), c = program.value("c", 5);
    program.add<Linear<double>>({x}, {a, b, c}, weights, GemmFormat::kFull);
    const ValueId ab = program.value("ab", 5), abc = program.value("abc", 5);
    program.add<SwiGlu<double>>({a, b}, {ab}, size_t{5});
    program.add<Add<double>>({ab, c}, {abc}, size_t{5});
    return std::pair(abc, size_t{5});
  });
  harness.check(kShort);
}

TEST(OpGradients, RmsNorm) {
  Harness harness(9, [](Program<double>& program, ParameterSet<double>& parameters, ValueId x) {
    const ValueId y = program.value("y", 9);
    program.add<RmsNorm<double>>({x}, {y}, &parameters.add("norm", Role::kNorm, 1, 9), 1e-5);
    return std::pair(y, size_t{9});
  });
  harness.check(kShort);
}

TEST(OpGradients, ValueUsedTwiceAddsUp) {
  Harness harness(8, [](Program<double>& program, ParameterSet<double>& parameters, ValueId x) {
    const ValueId n = program.value("n", 8), y = program.value("y", 8), z = program.value("z", 8);
    program.add<RmsNorm<double>>({x}, {n}, &parameters.add("norm", Role::kNorm, 1, 8), 1e-5);
    program.add<Add<double>>({x, n}, {y}, size_t{8});
    program.add<Add<double>>({y, x}, {z}, size_t{8});
    return std::pair(z, size_t{8});
  });
  harness.check(kShort);
}

TEST(OpGradients, SwiGlu) {
  Harness harness(5, [](Program<double>& program, ParameterSet<double>& parameters, ValueId x) {
    const ValueId g = program.value("g", 7), u = program.value("u", 7), y = program.value("y", 7);
    std::vector<Parameter<double>*> weights{&parameters.add("gate", Role::kFeedForward, 7, 5), &parameters.add("up", Role::kFeedForward, 7, 5)};
    program.add<Linear<double>>({x}, {g, u}, weights, GemmFormat::kFull);
    program.add<SwiGlu<double>>({g, u}, {y}, size_t{7});
    return std::pair(y, size_t{7});
  });
  harness.check(kShort);
}

Harness attention_harness(size_t heads, size_t kv_heads, size_t head_dim, size_t positions) {
  return Harness(6, [=](Program<double>& program, ParameterSet<double>& parameters, ValueId x) {
    const size_t q_width = heads * head_dim, kv_width = kv_heads * head_dim;
    const ValueId q = program.value("q", q_width), k = program.value("k", kv_width), v = program.value("v", kv_width);
    std::vector<Parameter<double>*> weights{&parameters.add("wq", Role::kAttention, q_width, 6), &parameters.add("wk", Role::kAttention, kv_width, 6),
                                            &parameters.add("wv", Role::kAttention, kv_width, 6)};
    program.add<Linear<double>>({x}, {q, k, v}, weights, GemmFormat::kFull);
    const auto table = std::make_shared<const RopeTable<double>>(positions, head_dim, 100.0);
    const ValueId qr = program.value("qr", q_width), kr = program.value("kr", kv_width);
    program.add<Rope<double>>({q}, {qr}, table, heads);
    program.add<Rope<double>>({k}, {kr}, table, kv_heads);
    const ValueId o = program.value("o", q_width), lse = program.value("lse", heads);
    program.add<Attention<double>>({qr, kr, v}, {o, lse}, heads, kv_heads, head_dim);
    return std::pair(o, q_width);
  });
}

TEST(OpGradients, RopeAndGroupedAttention) { attention_harness(6, 3, 2, 8).check(kShort); }

TEST(OpGradients, AttentionOneHead) { attention_harness(1, 1, 4, 8).check(kShort); }

/// Sequences longer than a query tile (128) and a key tile (512), with ends that fall inside tiles.
TEST(OpGradients, AttentionAcrossTiles) {
  attention_harness(2, 1, 2, 700).check(RandomBatch(kVocabulary, {0, 129, 130, 773}, 9), 3);
}

TEST(Attention, MatchesTheDenseFormula) {
  constexpr size_t kHeads = 4, kKv = 2, kDim = 6, kTokens = 150;
  const RandomBatch data(kVocabulary, {0, 17, kTokens}, 3);
  PhiloxStream random(8);
  std::vector<float> q(kTokens * kHeads * kDim), k(kTokens * kKv * kDim), v(k.size());
  for (auto* x : {&q, &k, &v}) {
    for (float& value : *x) value = random.next_normal();
  }
  std::vector<float> o(q.size()), lse(kTokens * kHeads);
  Attention<float> attention(kHeads, kKv, kDim);
  std::vector<std::byte> scratch(attention.forward_scratch_bytes(kTokens));
  Call<float> call;
  const Batch batch = data.view();
  call.batch = &batch;
  call.in = {q.data(), k.data(), v.data(), nullptr};
  call.out = {o.data(), lse.data(), nullptr, nullptr};
  call.scratch = scratch.data();
  call.rows = {0, kTokens};
  attention.forward(call);
  for (size_t t = 0; t < kTokens; ++t) {
    const size_t start = t < 17 ? 0 : 17;
    for (size_t head = 0; head < kHeads; ++head) {
      std::vector<double> p;
      double sum = 0;
      for (size_t j = start; j <= t; ++j) {
        double score = 0;
        for (size_t c = 0; c < kDim; ++c) score += static_cast<double>(q[(t * kHeads + head) * kDim + c]) * k[(j * kKv + head / 2) * kDim + c];
        p.push_back(std::exp(score / std::sqrt(static_cast<double>(kDim))));
        sum += p.back();
      }
      EXPECT_NEAR(lse[t * kHeads + head], std::log(sum), 1e-5);
      for (size_t c = 0; c < kDim; ++c) {
        double expected = 0;
        for (size_t j = start; j <= t; ++j) expected += p[j - start] / sum * v[(j * kKv + head / 2) * kDim + c];
        EXPECT_NEAR(o[(t * kHeads + head) * kDim + c], expected, 1e-5);
      }
    }
  }
}

TEST(Attention, RefusesHeadsThatDoNotDivide) { EXPECT_THROW(Attention<float>(6, 4, 8), Error); }

}  // namespace
}  // namespace mneme::train
