#include "train/optim/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/philox.h"
#include "train/ops/gemm.h"
#include "train/optim/rate_schedule.h"

namespace mneme::train {
namespace {

/// A matrix, a vector and an embedding with random values.
struct Fixture {
  Ledger ledger;
  ParameterSet<float> set;
  ParameterList list;

  explicit Fixture(size_t rows = 12, size_t columns = 20) {
    set.add("m", Role::kFeedForward, rows, columns);
    set.add("v", Role::kNorm, 1, 7);
    set.add("e", Role::kEmbedding, 5, 4);
    set.allocate(ledger);
    PhiloxStream random(1);
    for (auto& p : set.all()) {
      for (size_t i = 0; i < p.size(); ++i) p.value[i] = random.next_normal();
      list.push_back(&p);
    }
  }

  void set_gradients(uint64_t seed) {
    PhiloxStream random(seed);
    for (auto* p : list) {
      for (size_t i = 0; i < p->size(); ++i) p->grad[i] = random.next_normal();
    }
  }
};

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
    for (size_t i = 0; i < before.size(); ++i) update.push_back((static_cast<double>(before[i]) - f.list[0]->value[i]) / size);
    const size_t small = std::min(rows, columns);
    std::vector<double> gram(small * small);
    const bool wide = rows <= columns;
    gemm(GemmShape{small, small, wide ? columns : rows, !wide, wide, columns, columns, small}, 1.0, update.data(), update.data(), 0.0, gram.data());
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
