#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/test_error.h"
#include "kernels/matmul.h"
#include "train/ops/dispatch.h"
#include "train/ops/expert_linear.h"
#include "train/ops/linear.h"
#include "train/ops/op_harness.h"
#include "train/ops/route.h"
#include "train/ops/router.h"
#include "train/ops/ternary.h"

namespace mneme::train {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr size_t kVocabulary = Harness::kVocabulary;
using Matrices = std::vector<std::vector<Parameter<double>*>>;

/// A mixture of E experts of width 5 on rows of 6, K a token, beside a shared linear layer or alone.
struct MixtureShape {
  size_t n_experts, n_used;
  bool renormalise, shared;
  double balance;
};

void check_mixture(const MixtureShape& s, const std::set<std::string>& idle = {}) {
  constexpr size_t kWidth = 6, kHidden = 5;
  Router<double>* router = nullptr;
  Harness harness(kWidth, [&](Program<double>& program, ParameterSet<double>& parameters, ValueId x) {
    const auto experts = [&](const std::string& name, size_t rows, size_t columns) {
      std::vector<Parameter<double>*> list;
      for (size_t e = 0; e < s.n_experts; ++e) {
        list.push_back(&parameters.add(name + std::to_string(e), Role::kFeedForward, rows, columns));
      }
      return list;
    };
    const size_t k = s.n_used;
    const ValueId weights = program.value("weights", k), p = program.value("p", s.n_experts);
    const ValueId route = program.value("route", 2 * k), rows = program.value("rows", k * kWidth);
    router = &program.add<Router<double>>({x}, {weights, p, route},
                                          &parameters.add("router", Role::kRouter, s.n_experts, kWidth), k,
                                          s.renormalise, s.balance);
    program.add<Gather<double>>({x, route}, {rows}, kWidth, k);
    const ValueId gate = program.value("gate", k * kHidden), up = program.value("up", k * kHidden);
    const ValueId product = program.value("product", k * kHidden), down = program.value("down", k * kWidth);
    const ExpertLinear<double>::Options how{k, false, ActivationRounding::kNone};
    program.add<ExpertLinear<double>>({rows, route}, {gate, up},
                                      Matrices{experts("gate", kHidden, kWidth), experts("up", kHidden, kWidth)}, how);
    program.add<SwiGlu<double>>({gate, up}, {product}, k * kHidden);
    program.add<ExpertLinear<double>>({product, route}, {down}, Matrices{experts("down", kWidth, kHidden)}, how);
    std::vector<ValueId> inputs = {down, weights, route};
    if (s.shared) {
      const ValueId shared = program.value("shared", kWidth);
      std::vector<Parameter<double>*> w = {&parameters.add("shared", Role::kFeedForward, kWidth, kWidth)};
      program.add<Linear<double>>({x}, {shared}, w, GemmFormat::kFull);
      inputs.push_back(shared);
    }
    const ValueId y = program.value("y", kWidth);
    program.add<Combine<double>>(inputs, {y}, kWidth, k);
    return std::pair(y, kWidth);
  });
  harness.check(
      RandomBatch(kVocabulary, {0, 9, 40}, 5), 8, [&] { return router->balance_loss(); }, idle);
}

TEST(ExpertGradients, OneOfThreeBesideASharedOne) {
  check_mixture({3, 1, false, true, 0.5});
}
TEST(ExpertGradients, TwoOfFourRenormalised) {
  check_mixture({4, 2, true, false, 0.5});
}
TEST(ExpertGradients, AllOfTwo) {
  check_mixture({2, 2, false, true, 0});
}
/// The only expert has the probability one whatever the router says.
TEST(ExpertGradients, OneOfOne) {
  check_mixture({1, 1, false, true, 0.5}, {"router"});
}

std::vector<double> normal(size_t n, uint64_t seed) {
  PhiloxStream random(seed);
  std::vector<double> x(n);
  for (double& v : x) v = static_cast<double>(random.next_normal());
  return x;
}

/// Parameters in memory of their own.
struct Weight : Parameter<double> {
  Weight(std::vector<double> v, size_t n_rows, size_t n_columns) : values(std::move(v)), gradient(values.size(), NAN) {
    name = "w";
    rows = n_rows;
    columns = n_columns;
    value = values.data();
    grad = gradient.data();
  }
  std::vector<double> values, gradient;
};

/// What one op does with rows x of a batch without a route.
struct Step {
  std::vector<double> y, dx;
  Step(Op<double>& op, std::vector<double> x, const std::vector<double>& dy, size_t n_tokens)
      : y(dy.size()), dx(x.size()) {
    const RandomBatch data(kVocabulary, {0, static_cast<uint32_t>(n_tokens)}, 1);
    const Batch batch = data.view();
    std::vector<double> scratch(op.backward_scratch_bytes(n_tokens) / sizeof(double) + 1);
    std::vector<double> d_out = dy;
    Call<double> call;
    call.batch = &batch;
    call.rows = {0, n_tokens};
    call.in[0] = x.data();
    call.out[0] = y.data();
    call.grad_in[0] = dx.data();
    call.grad_out[0] = d_out.data();
    call.scratch = reinterpret_cast<std::byte*>(scratch.data());
    op.forward(call);
    op.backward(call);
  }
};

/// Straight through: with rounded inputs and weights in their place, a layer in full precision has the same output and
/// the same gradients.
TEST(TernaryExperts, GradientsPassThroughTheRounding) {
  constexpr size_t kTokens = 7, kColumns = 64, kRows = 9;
  for (const ActivationRounding rounding :
       {ActivationRounding::kNone, ActivationRounding::kBlocks, ActivationRounding::kTokens}) {
    const std::vector<double> x = normal(kTokens * kColumns, 1), w = normal(kRows * kColumns, 2),
                              dy = normal(kTokens * kRows, 3);
    std::vector<double> rounded_x(x.size()), rounded_w(w.size());
    round_activations(rounding, x.data(), kTokens, kColumns, rounded_x.data());
    const double scale = ternary_codes(w.data(), kRows, kColumns, rounded_w.data());
    for (double& v : rounded_w) v *= scale;
    EXPECT_EQ(rounded_x == x, rounding == ActivationRounding::kNone);
    Weight master(w, kRows, kColumns), seen(rounded_w, kRows, kColumns);
    ExpertLinear<double> ternary(Matrices{{&master}}, {1, true, rounding});
    ExpertLinear<double> full(Matrices{{&seen}}, {1, false, ActivationRounding::kNone});
    const Step a(ternary, x, dy, kTokens), b(full, rounded_x, dy, kTokens);
    for (size_t i = 0; i < a.y.size(); ++i) EXPECT_NEAR(a.y[i], b.y[i], 1e-12);
    for (size_t i = 0; i < a.dx.size(); ++i) EXPECT_NEAR(a.dx[i], b.dx[i], 1e-12);
    EXPECT_EQ(master.gradient, seen.gradient);
    EXPECT_EQ(master.values, w) << "the master is not touched";
  }
}

TEST(TernaryExperts, AMatrixOfZerosAndATokenOfZerosGiveZero) {
  constexpr size_t kColumns = 32, kRows = 3;
  Weight zero(std::vector<double>(kRows * kColumns, 0), kRows, kColumns),
      other(normal(kRows * kColumns, 4), kRows, kColumns);
  const std::vector<double> dy(2 * kRows, 1);
  std::vector<double> x = normal(2 * kColumns, 5);
  std::fill_n(x.begin(), kColumns, 0.0);
  for (const ActivationRounding rounding : {ActivationRounding::kBlocks, ActivationRounding::kTokens}) {
    ExpertLinear<double> of_zero(Matrices{{&zero}}, {1, true, rounding}),
        of_other(Matrices{{&other}}, {1, true, rounding});
    zero.grad_started = other.grad_started = false;
    const Step a(of_zero, x, dy, 2), b(of_other, x, dy, 2);
    EXPECT_THAT(a.y, testing::Each(0.0));
    EXPECT_THAT(a.dx, testing::Each(0.0));
    EXPECT_TRUE(std::all_of(zero.gradient.begin(), zero.gradient.end(), [](double g) { return std::isfinite(g); }));
    for (size_t r = 0; r < kRows; ++r) EXPECT_EQ(b.y[r], 0.0);
    EXPECT_NE(b.y[kRows], 0.0);
  }
}

/// A router's decision about rows x with weights w.
struct Decision {
  std::vector<double> weights, probabilities;
  std::vector<uint32_t> row_of, expert_of;
  std::vector<double> shares;
  double balance;

  Decision(std::vector<double> w, size_t n_experts, size_t n_used, std::vector<double> x, bool renormalise = false) {
    const size_t columns = w.size() / n_experts, n = x.size() / columns;
    Weight weight(std::move(w), n_experts, columns);
    weight.name = "blk.3.ffn_gate_inp.weight";
    Router<double> router(&weight, n_used, renormalise, 1);
    weights.resize(n * n_used);
    probabilities.resize(n * n_experts);
    std::vector<double> memory(2 * n * n_used);
    const std::vector<float> ones(n, 1.0f);
    const std::vector<int32_t> tokens(n, 0);
    Batch batch;
    batch.tokens = tokens;
    batch.weights = ones;
    batch.loss_scale = 1.0 / static_cast<double>(n);
    Call<double> call;
    call.batch = &batch;
    call.in[0] = x.data();
    call.out = {weights.data(), probabilities.data(), memory.data(), nullptr};
    router.forward(call);
    const Route route = Route::of(memory.data(), n, n_used);
    row_of.assign(route.row_of.begin(), route.row_of.end());
    expert_of.assign(route.expert_of.begin(), route.expert_of.end());
    shares = router.shares();
    balance = router.balance_loss();
  }
};

TEST(Router, GroupsRowsByExpertInTheOrderOfTokens) {
  // Scores of the experts are the two columns of x.
  const Decision d({1, 0, 0, 1}, 2, 1, {0, 1, 1, 0, 0, 2, 3, 0});
  EXPECT_THAT(d.row_of, ElementsAre(2, 0, 3, 1));
  EXPECT_THAT(d.expert_of, ElementsAre(0, 0, 1, 1));
  EXPECT_THAT(d.shares, ElementsAre(0.5, 0.5));
  EXPECT_NEAR(d.weights[2], 1 / (1 + std::exp(-2.0)), 1e-12) << "not divided by the sum";
  const Decision both({1, 0, 0, 1}, 2, 2, {0, 1}, true);
  EXPECT_NEAR(both.weights[0], 1 / (1 + std::exp(-1.0)), 1e-12) << "the more probable one first";
  EXPECT_NEAR(both.weights[0] + both.weights[1], 1, 1e-12);
}

TEST(Router, TiesGoToTheLowerIndex) {
  const Decision d(std::vector<double>(3 * 2, 0), 3, 2, {1, 2, 3, 4});
  EXPECT_THAT(d.expert_of, ElementsAre(0, 0, 1, 1));
  EXPECT_THAT(d.shares, ElementsAre(0.5, 0.5, 0));
  EXPECT_NEAR(d.balance, 1, 1e-12) << "3 (0.5 / 3 + 0.5 / 3)";
}

TEST(Router, RefusesScoresThatAreNotFinite) {
  EXPECT_THAT(error_of([] { Decision({NAN, 0, 0, 0}, 2, 1, {1, 1}); }), HasSubstr("blk.3.ffn_gate_inp.weight"));
  EXPECT_THAT(error_of([] {
                Decision({std::numeric_limits<double>::infinity(), 0, 0, 0}, 2, 1, {1, 1});
              }),
              HasSubstr("expected finite scores"));
}

/// An expert that gets no token has gradients of zeros, not what lay in memory.
TEST(ExpertLinear, AnExpertWithoutTokensHasNoGradient) {
  constexpr size_t kTokens = 3, kColumns = 4, kRows = 2;
  Weight w0(normal(8, 1), kRows, kColumns), w1(normal(8, 2), kRows, kColumns), w2(normal(8, 3), kRows, kColumns);
  ExpertLinear<double> op(Matrices{{&w0, &w1, &w2}}, {1, false, ActivationRounding::kNone});
  std::vector<double> route(2 * kTokens), x = normal(kTokens * kColumns, 4), y(kTokens * kRows), dx(x.size()),
                                          dy(y.size(), 1);
  const Route r = Route::of(route.data(), kTokens, 1);
  std::iota(r.row_of.begin(), r.row_of.end(), 0u);
  std::fill(r.expert_of.begin(), r.expert_of.end(), 1u);
  const RandomBatch data(kVocabulary, {0, kTokens}, 1);
  const Batch batch = data.view();
  Call<double> call;
  call.batch = &batch;
  call.in = {x.data(), route.data(), nullptr, nullptr};
  call.out[0] = y.data();
  call.grad_in[0] = dx.data();
  call.grad_out[0] = dy.data();
  op.forward(call);
  op.backward(call);
  EXPECT_THAT(w0.gradient, testing::Each(0.0));
  EXPECT_THAT(w2.gradient, testing::Each(0.0));
  EXPECT_NE(w1.gradient[0], 0.0);
  op.backward(call);
  EXPECT_THAT(w0.gradient, testing::Each(0.0)) << "and they add up as those of the others do";
}

/// Inputs of ternary products are rounded in training as the products of a running model round them: with rows that
/// pick one column each, these give the rounded inputs back.
TEST(TernaryExperts, InputsAreRoundedAsInProducts) {
  constexpr size_t kColumns = 256, kTokens = 3;
  std::vector<std::byte> codes(row_bytes(DType::kTQ2_0, kColumns) * kColumns);
  for (size_t r = 0; r < kColumns; ++r) {
    std::vector<float> row(kColumns, 0.0f);
    row[r] = 1;
    dtype_info(DType::kTQ2_0)
        .encode(row.data(), nullptr, codes.data() + row_bytes(DType::kTQ2_0, kColumns) * r, kColumns);
  }
  PhiloxStream random(9);
  std::vector<float> x(kTokens * kColumns), expected(x.size()), found(x.size());
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = random.next_normal() * std::ldexp(1.0f, static_cast<int>(i / 32 * 3) - 30);
  std::fill_n(x.begin() + 64, 32, 0.0f);
  x[96] = 127.5f * 0x1p-20f;  // would round to 128
  Ledger ledger;
  kernels::MatmulInput input(ledger);
  input.set(x.data(), kTokens, kColumns);
  kernels::matmul(kernels::Matrix::from({DType::kTQ2_0, {kColumns, kColumns}, codes.data()}), input, nullptr,
                  expected.data(), kColumns);
  round_activations(ActivationRounding::kBlocks, x.data(), kTokens, kColumns, found.data());
  EXPECT_EQ(found, expected);
}

/// Gaussian weights: 31 % zeros, and the squared error of rounding to the mean magnitude.
TEST(Ternary, AbsMeanOfAGaussianMatrix) {
  constexpr size_t kRows = 512, kColumns = 512;
  PhiloxStream random(3);
  std::vector<float> w(kRows * kColumns), codes(w.size());
  for (float& v : w) v = 0.02f * random.next_normal();
  const float scale = ternary_codes(w.data(), kRows, kColumns, codes.data());
  double error = 0, size = 0, zeros = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    error += std::pow(static_cast<double>(w[i]) - static_cast<double>(scale * codes[i]), 2);
    size += std::pow(static_cast<double>(w[i]), 2);
    zeros += codes[i] == 0 ? 1 : 0;
  }
  EXPECT_NEAR(zeros / static_cast<double>(w.size()), 0.31, 0.01);
  EXPECT_NEAR(error / size, 0.262, 0.005);
  EXPECT_NEAR(scale, 0.02 * std::sqrt(2 / M_PI), 1e-4);
}

}  // namespace
}  // namespace mneme::train
