#include "train/optim/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "train/ops/gemm.h"
#include "train/optim/optimizer_fixture.h"
#include "train/optim/rate_schedule.h"

namespace mneme::train {
namespace {

using Fixture = OptimizerFixture;

TEST(AdamW, FollowsTheTextbookFormula) {
  Fixture f;
  AdamWOptions options;
  const auto optimizer = make_adamw(f.ledger, f.list, options);
  EXPECT_EQ(optimizer->state_bytes(), 2 * (240 + 7 + 20) * sizeof(float));
  // Buffers are whole pages.
  EXPECT_GE(f.ledger.used(Tier::kRam, Tag::kOptimizer), optimizer->state_bytes());
  EXPECT_LE(f.ledger.used(Tier::kRam, Tag::kOptimizer), optimizer->state_bytes() + 2 * 4096);
  std::vector<double> w, m(267, 0), v(267, 0);
  for (auto* p : f.list) w.insert(w.end(), p->value, p->value + p->size());
  for (uint64_t step = 0; step < 5; ++step) {
    f.set_gradients(10 + step);
    size_t k = 0;
    for (size_t i = 0; i < f.list.size(); ++i) {
      const double decay = i == 0 ? options.weight_decay : 0.0;
      for (size_t j = 0; j < f.list[i]->size(); ++j, ++k) {
        const double g = 0.5 * f.list[i]->grad[j];
        m[k] = 0.9 * m[k] + 0.1 * g;
        v[k] = 0.95 * v[k] + 0.05 * g * g;
        const double mh = m[k] / (1 - std::pow(0.9, step + 1)), vh = v[k] / (1 - std::pow(0.95, step + 1));
        w[k] = w[k] * (1 - 0.01 * decay) - 0.01 * mh / (std::sqrt(vh) + options.eps);
      }
      optimizer->update(i, {step, 0.01f, 0.5f});
    }
  }
  size_t k = 0;
  for (auto* p : f.list) {
    for (size_t j = 0; j < p->size(); ++j, ++k) EXPECT_NEAR(p->value[j], w[k], 2e-6) << p->name << j;
  }
}

/// The update of a matrix is near an orthogonal one, for both shapes: its Gram matrix is near the identity.
TEST(Muon, UpdateIsNearlyOrthogonal) {
  for (const auto& [rows, columns] : {std::pair<size_t, size_t>{12, 20}, {20, 12}, {16, 16}}) {
    Fixture f(rows, columns);
    MuonOptions options;
    options.weight_decay = 0;
    const auto optimizer = make_muon(f.ledger, f.list, options);
    EXPECT_EQ(optimizer->state_bytes(), (rows * columns + 2 * 27) * sizeof(float));
    std::vector<float> before(f.list[0]->value, f.list[0]->value + f.list[0]->size());
    f.set_gradients(3);
    optimizer->update(0, {0, 1.0f, 1.0f});
    std::vector<double> update;
    const double size = 0.2 * std::sqrt(static_cast<double>(std::max(rows, columns)));
    for (size_t i = 0; i < before.size(); ++i)
      update.push_back((static_cast<double>(before[i]) - f.list[0]->value[i]) / size);
    const size_t small = std::min(rows, columns);
    std::vector<double> gram(small * small);
    const bool wide = rows <= columns;
    gemm(GemmShape{small, small, wide ? columns : rows, !wide, wide, columns, columns, small}, 1.0, update.data(),
         update.data(), 0.0, gram.data());
    // Five steps leave singular values between about 0.7 and 1.2, so squares between 0.5 and 1.5.
    double trace = 0;
    for (size_t i = 0; i < small; ++i) {
      EXPECT_NEAR(gram[i * small + i], 1.0, 0.5);
      trace += gram[i * small + i];
      for (size_t j = 0; j < i; ++j) EXPECT_LT(std::abs(gram[i * small + j]), 0.4);
    }
    EXPECT_NEAR(trace / static_cast<double>(small), 0.9, 0.25);
  }
}

TEST(Sgd, FollowsTheFormulaWithAndWithoutNesterov) {
  for (const bool nesterov : {false, true}) {
    Fixture f;
    const SgdOptions options{0.9f, nesterov, 0.1f};
    const auto optimizer = make_sgd(f.ledger, f.list, options);
    EXPECT_EQ(optimizer->state_bytes(), 267 * sizeof(float));
    std::vector<double> w = f.values(), v(w.size(), 0);
    for (uint64_t step = 0; step < 4; ++step) {
      f.set_gradients(20 + step);
      size_t k = 0;
      for (size_t i = 0; i < f.list.size(); ++i) {
        for (size_t j = 0; j < f.list[i]->size(); ++j, ++k) {
          const double g = 0.5 * static_cast<double>(f.list[i]->grad[j]);
          v[k] = 0.9 * v[k] + g;
          w[k] = w[k] * (i == 0 ? 1 - 0.01 * 0.1 : 1) - 0.01 * (nesterov ? g + 0.9 * v[k] : v[k]);
        }
        optimizer->update(i, {step, 0.01f, 0.5f});
      }
    }
    const std::vector<double> found = f.values();
    for (size_t k = 0; k < w.size(); ++k) EXPECT_NEAR(found[k], w[k], 2e-6) << k;
  }
  Fixture f;
  EXPECT_EQ(make_sgd(f.ledger, f.list, {0, false, 0})->state_bytes(), 0u);
}

TEST(Adafactor, FollowsTheFormula) {
  for (const float beta1 : {0.0f, 0.9f}) {
    Fixture f;
    AdafactorOptions options;
    options.beta1 = beta1;
    options.clip_threshold = 0.8f;
    const auto optimizer = make_adafactor(f.ledger, f.list, options);
    // Row and column means of the matrices, all values of the vector.
    EXPECT_EQ(optimizer->state_bytes(), ((12 + 20) + 7 + (5 + 4) + (beta1 > 0 ? 267 : 0)) * sizeof(float));
    const size_t m = 12, n = 20;
    std::vector<double> w(f.list[0]->value, f.list[0]->value + m * n), r(m, 0), c(n, 0), first(m * n, 0);
    for (uint64_t step = 0; step < 4; ++step) {
      f.set_gradients(30 + step);
      const double beta = 1 - std::pow(step + 1.0, -0.8);
      std::vector<double> g(m * n), rows(m, 0), columns(n, 0);
      for (size_t i = 0; i < m * n; ++i) {
        g[i] = 0.5 * static_cast<double>(f.list[0]->grad[i]);
        rows[i / n] += g[i] * g[i] / n;
        columns[i % n] += g[i] * g[i] / m;
      }
      double mean = 0, square = 0, scale = 0;
      for (size_t i = 0; i < m; ++i) mean += (r[i] = beta * r[i] + (1 - beta) * rows[i]) / m;
      for (size_t j = 0; j < n; ++j) c[j] = beta * c[j] + (1 - beta) * columns[j];
      for (size_t i = 0; i < m * n; ++i) {
        g[i] /= std::sqrt(r[i / n] * c[i % n] / mean);
        square += g[i] * g[i] / (m * n);
        scale += w[i] * w[i] / (m * n);
      }
      for (size_t i = 0; i < m * n; ++i) {
        double u = g[i] / std::max(1.0, std::sqrt(square) / 0.8);
        if (beta1 > 0) u = first[i] = 0.9 * first[i] + 0.1 * u;
        w[i] -= 0.01 * std::sqrt(scale) * u;
      }
      for (size_t i = 0; i < f.list.size(); ++i) optimizer->update(i, {step, 0.01f, 0.5f});
    }
    for (size_t i = 0; i < m * n; ++i) EXPECT_NEAR(f.list[0]->value[i], w[i], 5e-6) << i;
  }
}

/// 8-bit moments: bytes by the formula, and a path near the one of f32 moments.
TEST(AdamW8, StaysNearAdamW) {
  Fixture exact(64, 80), coded(64, 80);
  AdamWOptions options;
  const auto f32 = make_adamw(exact.ledger, exact.list, options);
  options.moments = MomentFormat::k8Bit;
  const auto f8 = make_adamw(coded.ledger, coded.list, options);
  // 5120 values in 20 blocks; the small arrays stay f32.
  EXPECT_EQ(f8->state_bytes(), 2 * (5120 + 20 * sizeof(float)) + 2 * 27 * sizeof(float));
  EXPECT_EQ(f8->name(), "adamw8");
  const std::vector<double> start = exact.values();
  for (uint64_t step = 0; step < 30; ++step) {
    for (Fixture* f : {&exact, &coded}) f->set_gradients(40 + step % 7);
    for (size_t i = 0; i < exact.list.size(); ++i) {
      f32->update(i, {step, 0.01f, 1.0f});
      f8->update(i, {step, 0.01f, 1.0f});
    }
  }
  double error = 0, way = 0;
  const std::vector<double> a = exact.values(), b = coded.values();
  for (size_t k = 0; k < a.size(); ++k) {
    error += std::pow(a[k] - b[k], 2);
    way += std::pow(a[k] - start[k], 2);
  }
  EXPECT_GT(error, 0);
  EXPECT_LT(std::sqrt(error / way), 0.05);
}

OptimizerOptions options_of(OptimizerKind kind) {
  OptimizerOptions o;
  o.kind = kind;
  o.adamw.weight_decay = o.muon.weight_decay = o.muon.other.weight_decay = o.galore.adam.weight_decay = 0;
  o.adamw.moments = kind == OptimizerKind::kAdamW8 ? MomentFormat::k8Bit : MomentFormat::kF32;
  o.galore.rank = 16;
  o.galore.scale = 1;
  o.galore.update_gap = 10;
  o.galore.history = kind == OptimizerKind::kNaturalGalore ? 5 : 0;
  return o;
}

/// Every kind finds the matrix behind noiseless linear data: |X W^T - Y|^2 falls by a factor of a hundred.
TEST(Optimizers, EveryKindConverges) {
  constexpr size_t kRows = 64, kColumns = 72, kSamples = 128;
  PhiloxStream random(3);
  const auto normals = [&](size_t n) {
    std::vector<float> x(n);
    for (float& v : x) v = random.next_normal();
    return x;
  };
  const std::vector<float> x = normals(kSamples * kColumns), truth = normals(kRows * kColumns);
  std::vector<float> y(kSamples * kRows), error(kSamples * kRows);
  gemm({kSamples, kRows, kColumns, false, true, kColumns, kColumns, kRows}, 1.0f, x.data(), truth.data(), 0.0f,
       y.data());
  using Kind = OptimizerKind;
  const std::pair<Kind, float> kinds[] = {{Kind::kSgd, 0.02f},         {Kind::kAdamW, 0.1f}, {Kind::kAdamW8, 0.1f},
                                          {Kind::kAdafactor, 0.1f},    {Kind::kMuon, 0.1f},  {Kind::kGalore, 0.1f},
                                          {Kind::kNaturalGalore, 0.1f}};
  for (const auto& [kind, rate] : kinds) {
    Fixture f(kRows, kColumns);
    const auto optimizer = make_optimizer(f.ledger, f.list, options_of(kind));
    EXPECT_EQ(optimizer->name(), kind_name(kind));
    Parameter<float>& w = *f.list[0];
    double first = 0, last = 0;
    constexpr uint64_t kSteps = 300;
    for (uint64_t step = 0; step < kSteps; ++step) {
      error = y;
      gemm({kSamples, kRows, kColumns, false, true, kColumns, kColumns, kRows}, 1.0f, x.data(), w.value, -1.0f,
           error.data());
      last = 0;
      for (const float e : error) last += static_cast<double>(e) * static_cast<double>(e);
      if (step == 0) first = last;
      gemm({kRows, kColumns, kSamples, true, false, kRows, kColumns, kColumns}, 1.0f / kSamples, error.data(), x.data(),
           0.0f, w.grad);
      optimizer->update(0, {step, rate * static_cast<float>(kSteps - step) / kSteps, 1.0f});
    }
    EXPECT_LT(last, first / 100) << kind_name(kind);
  }
}

TEST(GradientNorm, CoversAllParameters) {
  Fixture f;
  f.set_gradients(4);
  double sum = 0;
  for (auto* p : f.list) {
    for (size_t i = 0; i < p->size(); ++i) sum += std::pow(static_cast<double>(p->grad[i]), 2);
  }
  EXPECT_NEAR(gradient_norm(f.list), std::sqrt(sum), 1e-5);
}

TEST(RateSchedule, Shapes) {
  RateSchedule s{RateSchedule::Shape::kWsd, 1.0f, 0.1f, 10, 100, 20};
  EXPECT_FLOAT_EQ(s.at(0), 0.1f);
  EXPECT_FLOAT_EQ(s.at(9), 1.0f);
  EXPECT_FLOAT_EQ(s.at(80), 1.0f);
  EXPECT_FLOAT_EQ(s.at(90), 0.55f);
  EXPECT_FLOAT_EQ(s.at(100), 0.1f);
  EXPECT_FLOAT_EQ(s.at(1000), 0.1f);
  s.shape = RateSchedule::Shape::kCosine;
  EXPECT_FLOAT_EQ(s.at(10), 1.0f);
  EXPECT_NEAR(s.at(55), 0.55f, 1e-6);
  EXPECT_FLOAT_EQ(s.at(100), 0.1f);
  s.shape = RateSchedule::Shape::kConstant;
  EXPECT_FLOAT_EQ(s.at(99), 1.0f);
}

}  // namespace
}  // namespace mneme::train
