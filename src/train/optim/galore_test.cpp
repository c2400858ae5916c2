#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "train/ops/gemm.h"
#include "train/ops/vector_math.h"
#include "train/optim/gradient_history.h"
#include "train/optim/optimizer_fixture.h"
#include "train/optim/subspace.h"

namespace mneme::train {
namespace {

std::vector<float> normals(size_t n, uint64_t seed) {
  PhiloxStream random(seed);
  std::vector<float> x(n);
  for (float& v : x) v = random.next_normal();
  return x;
}

/// a b^T of row-major [n, k] and [m, k], in f64.
std::vector<double> gram_of(const std::vector<float>& a, const std::vector<float>& b, size_t n, size_t m, size_t k) {
  std::vector<double> out(n * m, 0);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < m; ++j) {
      for (size_t p = 0; p < k; ++p)
        out[i * m + j] += static_cast<double>(a[i * k + p]) * static_cast<double>(b[j * k + p]);
    }
  }
  return out;
}

void expect_orthonormal(const std::vector<float>& basis, size_t rank, size_t length) {
  const auto gram = gram_of(basis, basis, rank, rank, length);
  for (size_t i = 0; i < rank; ++i) {
    for (size_t j = 0; j < rank; ++j) EXPECT_NEAR(gram[i * rank + j], i == j ? 1 : 0, 2e-6) << i << " " << j;
  }
}

/// A matrix with known singular vectors: the finder returns them, in order and up to sign.
TEST(Subspace, FindsSingularVectorsOfAGapSpectrum) {
  constexpr size_t kRows = 40, kColumns = 65, kRank = 6, kAll = 30;
  std::vector<float> u = normals(kAll * kRows, 1), v = normals(kAll * kColumns, 2);
  orthonormalise_rows(u.data(), kAll, kRows, 0);
  orthonormalise_rows(v.data(), kAll, kColumns, 0);
  std::vector<float> scaled = u;
  for (size_t i = 0; i < kAll; ++i) {
    const float sigma = i < kRank ? 10.0f - static_cast<float>(i) : 0.5f;
    for (size_t j = 0; j < kRows; ++j) scaled[i * kRows + j] *= sigma;
  }
  std::vector<float> g(kRows * kColumns);
  gemm({kRows, kColumns, kAll, true, false, kRows, kColumns, kColumns}, 1.0f, scaled.data(), v.data(), 0.0f, g.data());
  Ledger ledger;
  SubspaceFinder finder(ledger, kRows, kColumns, kRank);
  std::vector<float> left(kRank * kRows), right(kRank * kColumns);
  finder.left(g.data(), kRows, kColumns, kRank, 7, left.data());
  finder.right(g.data(), kRows, kColumns, kRank, 7, right.data());
  expect_orthonormal(left, kRank, kRows);
  expect_orthonormal(right, kRank, kColumns);
  const auto along_left = gram_of(left, u, kRank, kAll, kRows), along_right = gram_of(right, v, kRank, kAll, kColumns);
  for (size_t i = 0; i < kRank; ++i) {
    EXPECT_GT(std::abs(along_left[i * kAll + i]), 0.999) << i;
    EXPECT_GT(std::abs(along_right[i * kAll + i]), 0.999) << i;
  }
}

TEST(Subspace, MissingDirectionsAreCompleted) {
  constexpr size_t kRows = 12, kColumns = 20, kRank = 8;
  std::vector<float> g(kRows * kColumns, 0.0f), basis(kRank * kRows);
  Ledger ledger;
  SubspaceFinder finder(ledger, kRows, kColumns, kRank);
  finder.left(g.data(), kRows, kColumns, kRank, 1, basis.data());
  expect_orthonormal(basis, kRank, kRows);
  g[3] = 2.0f;  // rank one: row 0
  finder.left(g.data(), kRows, kColumns, kRank, 1, basis.data());
  expect_orthonormal(basis, kRank, kRows);
  EXPECT_NEAR(std::abs(basis[0]), 1.0f, 1e-5f);
}

GaloreOptions plain(size_t rank, ProjectionSide side) {
  GaloreOptions options;
  options.rank = rank;
  options.side = side;
  options.scale = 1;
  options.update_gap = 1000;
  options.adam.weight_decay = 0.1f;
  return options;
}

/// The bases that an optimiser holds.
std::vector<float> bases_of(Optimizer& optimizer) {
  for (const StateView& view : optimizer.state()) {
    if (view.name != "galore.bases") continue;
    const auto* first = reinterpret_cast<const float*>(view.bytes.data());
    return {first, first + view.bytes.size() / sizeof(float)};
  }
  return {};
}

/// With full rank GaLore is AdamW in the basis that it found: W_t = P A_t, where A starts at P^T W and AdamW moves it
/// by the gradient P^T G.
TEST(Galore, FullRankIsAdamWInTheProjectedBasis) {
  struct Case {
    size_t rows, columns;
    ProjectionSide side;
  };
  for (const Case& c : {Case{12, 20, ProjectionSide::kAuto}, Case{20, 12, ProjectionSide::kAuto},
                        Case{16, 16, ProjectionSide::kLeft}}) {
    const size_t rows = c.rows, columns = c.columns;
    OptimizerFixture f(rows, columns), inner(rows, columns);
    const size_t small = std::min(rows, columns);
    const GaloreOptions options = plain(1000, c.side);  // more than there is: clamped
    const auto galore = make_galore(f.ledger, f.list, options);
    const auto adam = make_adamw(inner.ledger, inner.list, options.adam);
    const bool left = rows <= columns;
    std::vector<float> basis;
    const auto to_basis = [&](const float* x, float* y) {
      if (left) {
        gemm({rows, columns, rows, false, false, rows, columns, columns}, 1.0f, basis.data(), x, 0.0f, y);
      } else {
        gemm({rows, columns, columns, false, true, columns, columns, columns}, 1.0f, x, basis.data(), 0.0f, y);
      }
    };
    const std::vector<float> start(f.list[0]->value, f.list[0]->value + rows * columns);
    for (uint64_t step = 0; step < 6; ++step) {
      f.set_gradients(50 + step);
      galore->update(0, {step, 0.02f, 0.5f});
      if (step == 0) {
        basis = bases_of(*galore);
        ASSERT_EQ(basis.size(), small * small);
        to_basis(start.data(), inner.list[0]->value);
      }
      to_basis(f.list[0]->grad, inner.list[0]->grad);
      adam->update(0, {step, 0.02f, 0.5f});
      std::vector<float> projected(rows * columns);
      to_basis(f.list[0]->value, projected.data());
      for (size_t i = 0; i < projected.size(); ++i) EXPECT_NEAR(projected[i], inner.list[0]->value[i], 1e-5f) << step;
    }
  }
}

/// A step stays in the subspace: what is orthogonal to it does not change.
TEST(Galore, UpdateLiesInTheSubspace) {
  for (const ProjectionSide side : {ProjectionSide::kLeft, ProjectionSide::kRight, ProjectionSide::kBoth}) {
    OptimizerFixture f(24, 30);
    GaloreOptions options = plain(4, side);
    options.adam.weight_decay = 0;
    const auto galore = make_galore(f.ledger, f.list, options);
    const std::vector<double> before = f.values();
    f.set_gradients(8);
    galore->update(0, {0, 0.1f, 1.0f});
    std::vector<float> change(24 * 30);
    for (size_t i = 0; i < change.size(); ++i)
      change[i] = static_cast<float>(static_cast<double>(f.list[0]->value[i]) - before[i]);
    const std::vector<float> bases = bases_of(*galore);
    const bool left = side != ProjectionSide::kRight, right = side != ProjectionSide::kLeft;
    ASSERT_EQ(bases.size(), (left ? 4 * 24 : 0) + (right ? 4 * 30 : 0));
    double size = 0;
    for (const float c : change) size += static_cast<double>(c) * static_cast<double>(c);
    EXPECT_GT(size, 0.01);
    const auto kept = [&](const float* basis, bool is_left) {
      // |P^T D|^2 or |D Q|^2 equals |D|^2 when D lies in the subspace.
      std::vector<float> part(4 * 30);
      if (is_left) {
        gemm({4, 30, 24, false, false, 24, 30, 30}, 1.0f, basis, change.data(), 0.0f, part.data());
      } else {
        gemm({24, 4, 30, false, true, 30, 30, 4}, 1.0f, change.data(), basis, 0.0f, part.data());
      }
      double sum = 0;
      for (size_t i = 0; i < (is_left ? 120u : 96u); ++i)
        sum += static_cast<double>(part[i]) * static_cast<double>(part[i]);
      return sum / size;
    };
    if (left) {
      EXPECT_NEAR(kept(bases.data(), true), 1, 1e-5);
    }
    if (right) {
      EXPECT_NEAR(kept(bases.data() + (left ? 96 : 0), false), 1, 1e-5);
    }
  }
}

TEST(Galore, StateBytesFollowTheFormulas) {
  constexpr size_t kM = 96, kN = 160, kR = 16, kOthers = 27;
  struct Case {
    ProjectionSide side;
    MomentFormat moments;
    size_t history, bases, projected;
  };
  for (const Case& c : {Case{ProjectionSide::kAuto, MomentFormat::kF32, 0, kM * kR, kR * kN},
                        Case{ProjectionSide::kRight, MomentFormat::kF32, 0, kN * kR, kM * kR},
                        Case{ProjectionSide::kBoth, MomentFormat::kF32, 0, (kM + kN) * kR, kR * kR},
                        Case{ProjectionSide::kBoth, MomentFormat::kF32, 5, (kM + kN) * kR, kR * kR},
                        Case{ProjectionSide::kRight, MomentFormat::kF32, 3, kN * kR, kM * kR}}) {
    OptimizerFixture f(kM, kN);
    GaloreOptions options = plain(kR, c.side);
    options.adam.moments = c.moments;
    options.history = c.history;
    const auto galore = make_galore(f.ledger, f.list, options);
    const size_t history = c.history > 0 ? c.history * c.projected * 4 + c.history * c.history * 8 + 16 : 0;
    EXPECT_EQ(galore->state_bytes(), 4 * c.bases + 8 * c.projected + history + 8 * kOthers);
    EXPECT_GE(f.ledger.used(Tier::kRam, Tag::kOptimizer), galore->state_bytes());
  }
  // 8-bit moments of 64 x 160 values: 40 blocks. With Adam's 8 bytes a weight that is 80 % less.
  OptimizerFixture f(256, 160);
  GaloreOptions options = plain(40, ProjectionSide::kAuto);
  options.adam.moments = MomentFormat::k8Bit;
  const auto galore = make_galore(f.ledger, f.list, options);
  const size_t bytes = 4 * 160 * 40 + 2 * (256 * 40 + 4 * 40) + 8 * kOthers;
  EXPECT_EQ(galore->state_bytes(), bytes);
  EXPECT_LT(bytes, 8u * 256 * 160 / 5);
}

/// First moments survive a change of basis with kRotate: a gradient that stays the same gives the same path as with a
/// basis that never changes, however often it is found again.
TEST(Galore, RotatedMomentsFollowTheBasis) {
  OptimizerFixture fixed(24, 30), turning(24, 30);
  GaloreOptions options = plain(24, ProjectionSide::kLeft);
  options.adam.weight_decay = 0;
  options.adam.beta2 = 0;   // second moments cannot be rotated: leave them out
  options.adam.eps = 1e3f;  // and let the step be linear in the first
  const auto a = make_galore(fixed.ledger, fixed.list, options);
  options.update_gap = 1;
  options.on_refresh = OnRefresh::kRotate;
  const auto b = make_galore(turning.ledger, turning.list, options);
  const std::vector<double> start = fixed.values();
  for (uint64_t step = 0; step < 6; ++step) {
    fixed.set_gradients(60 + step);
    turning.set_gradients(60 + step);
    a->update(0, {step, 10.0f, 1.0f});
    b->update(0, {step, 10.0f, 1.0f});
  }
  const std::vector<double> x = fixed.values(), y = turning.values();
  double error = 0, way = 0;
  for (size_t i = 0; i < 24 * 30; ++i) {
    error += std::pow(x[i] - y[i], 2);
    way += std::pow(x[i] - start[i], 2);
  }
  // Where the step is not quite linear, second moments of the two bases differ a little.
  EXPECT_LT(std::sqrt(error / way), 0.01);
}

/// Projections of micro-batches that are summed give the update of the summed gradient (the subspace is that of the first
/// micro-batch, which is the same direction here).
TEST(Galore, GatheredMicroBatchesEqualTheirSum) {
  for (const ProjectionSide side : {ProjectionSide::kLeft, ProjectionSide::kRight, ProjectionSide::kBoth}) {
    for (const size_t history : {0, 3}) {
      GaloreOptions options;
      options.rank = 5;
      options.update_gap = 100;
      options.side = side;
      options.history = history;
      options.gather = true;
      OptimizerFixture whole, parts;
      const auto at_once = make_galore(whole.ledger, whole.list, options);
      const auto gathered = make_galore(parts.ledger, parts.list, options);
      EXPECT_TRUE(gathered->gathers());
      for (uint64_t step = 0; step < 4; ++step) {
        const StepInfo info{step, 1e-2f, 0.5f};
        whole.set_gradients(step);
        for (size_t i = 0; i < whole.list.size(); ++i) at_once->update(i, info);
        for (size_t micro = 0; micro < 3; ++micro) {
          parts.set_gradients(step);
          const float share = micro == 0 ? 0.5f : 0.25f;
          for (size_t i = 0; i < parts.list.size(); ++i) {
            for (float& g : parts.gradients[i]) g *= share;
            gathered->gather(i, info, {micro == 0, micro == 2});
          }
        }
      }
      const auto a = whole.values(), b = parts.values();
      for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 2e-4) << i;
    }
  }
  OptimizerFixture fixture;
  const auto plain = make_galore(fixture.ledger, fixture.list, {});
  EXPECT_THROW(plain->gather(0, {0, 1e-3f, 1}, {true, true}), Error);
}

TEST(Galore, ZeroGradientKeepsTheSubspace) {
  OptimizerFixture f(24, 30);
  GaloreOptions options = plain(4, ProjectionSide::kBoth);
  options.update_gap = 1;
  const auto galore = make_galore(f.ledger, f.list, options);
  f.set_gradients(9);
  galore->update(0, {0, 0.01f, 1.0f});
  const std::vector<float> before = bases_of(*galore);
  std::fill_n(f.list[0]->grad, f.list[0]->size(), 0.0f);
  galore->update(0, {1, 0.01f, 1.0f});
  EXPECT_EQ(bases_of(*galore), before);
  for (size_t i = 0; i < f.list[0]->size(); ++i) ASSERT_TRUE(std::isfinite(f.list[0]->value[i]));
}

/// F^-1 g against the dense solution with F formed explicitly, while the history fills and after it wrapped around.
TEST(GradientHistory, EqualsTheDenseSolution) {
  constexpr size_t kK = 60, kLength = 7;
  for (const bool relative : {false, true}) {
    Ledger ledger;
    GradientHistory history(ledger, {5, kK}, kLength, relative ? 0.3f : 0.02f, relative);
    std::vector<std::vector<float>> past;
    for (uint64_t step = 0; step < 11; ++step) {
      std::vector<float> g = normals(kK, 70 + step);
      for (float& v : g) v *= 0.1f;
      past.push_back(g);
      if (past.size() > kLength) past.erase(past.begin());
      history.start_step();
      history.transform(1, g.data());
      EXPECT_EQ(history.count(1), past.size());
      EXPECT_EQ(history.count(0), 0u);

      std::vector<double> fisher(kK * kK, 0);
      double trace = 0;
      for (const auto& h : past) {
        for (size_t i = 0; i < kK; ++i) {
          trace += static_cast<double>(h[i]) * static_cast<double>(h[i]);
          for (size_t j = 0; j < kK; ++j) fisher[i * kK + j] += static_cast<double>(h[i]) * static_cast<double>(h[j]);
        }
      }
      const double lambda =
          relative ? static_cast<double>(0.3f) * trace / static_cast<double>(past.size()) : static_cast<double>(0.02f);
      // F^-1 g = sum over unit vectors of g_i F^-1 e_i.
      std::vector<double> expected(kK, 0), column(kK);
      for (size_t i = 0; i < kK; ++i) {
        solve_damped(fisher.data(), kK, kK, lambda, i, column.data());
        for (size_t j = 0; j < kK; ++j) expected[j] += static_cast<double>(past.back()[i]) * column[j];
      }
      double largest = 0, along = 0, gg = 0, ee = 0;
      for (size_t i = 0; i < kK; ++i) {
        largest = std::max(largest, std::abs(expected[i]));
        along += expected[i] * static_cast<double>(past.back()[i]);
        gg += std::pow(static_cast<double>(past.back()[i]), 2);
        ee += expected[i] * expected[i];
      }
      for (size_t i = 0; i < kK; ++i) EXPECT_NEAR(g[i], expected[i], 1e-6 * largest) << step;
      EXPECT_NEAR(history.cosine(), along / std::sqrt(gg * ee), 1e-6);
    }
    history.clear(1);
    std::vector<float> g = normals(kK, 99), same = g;
    history.transform(1, g.data());
    EXPECT_EQ(history.count(1), 1u);
  }
}

TEST(GradientHistory, DampedSolutionSurvivesASingularMatrix) {
  const double ones[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
  double x[3];
  solve_damped(ones, 3, 3, 0, 0, x);
  for (const double v : x) EXPECT_TRUE(std::isfinite(v));
}

/// A history of one gradient changes its length alone, to which Adam is indifferent: the path is GaLore's.
TEST(NaturalGalore, HistoryOfOneIsGalore) {
  OptimizerFixture a(24, 30), b(24, 30);
  GaloreOptions options = plain(6, ProjectionSide::kBoth);
  options.adam.eps = 1e-20f;
  const auto galore = make_galore(a.ledger, a.list, options);
  options.history = 1;
  const auto natural = make_galore(b.ledger, b.list, options);
  EXPECT_EQ(natural->name(), "natural-galore");
  // One and the same gradient, so that its factor 1 / (lambda + |g|^2) is the same at each step, too.
  for (uint64_t step = 0; step < 8; ++step) {
    a.set_gradients(80);
    b.set_gradients(80);
    for (size_t i = 0; i < 3; ++i) {
      galore->update(i, {step, 0.01f, 1.0f});
      natural->update(i, {step, 0.01f, 1.0f});
    }
  }
  const std::vector<double> x = a.values(), y = b.values();
  for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(x[i], y[i], 1e-5);
  ASSERT_EQ(natural->measures().size(), 1u);
  EXPECT_NEAR(natural->measures()[0].second, 1, 1e-6);
}

/// Noisy quadratic loss whose few steep directions lie across the coordinates: the Fisher matrix of the history tells
/// them apart, Adam alone cannot. Natural GaLore needs two thirds of the steps of GaLore at most, each at its best
/// rate.
TEST(NaturalGalore, NeedsFewerStepsOnCorrelatedCoordinates) {
  constexpr size_t kSide = 8, kN = kSide * kSide, kSteep = 4;
  std::vector<float> basis = normals(kN * kN, 90);
  orthonormalise_rows(basis.data(), kN, kN, 0);
  // x -> sum over directions b_i of f(curvature_i) (b_i . x) b_i.
  const auto along = [&](const std::vector<float>& x, bool root) {
    std::vector<float> y(kN, 0.0f);
    for (size_t i = 0; i < kN; ++i) {
      const float curvature = i < kSteep ? 1.0f : 0.01f;
      const float part = dot(basis.data() + i * kN, x.data(), kN) * (root ? std::sqrt(curvature) : curvature);
      add_scaled(basis.data() + i * kN, part, kN, y.data());
    }
    return y;
  };
  constexpr uint64_t kMost = 600;
  const auto steps_needed = [&](size_t history, float rate) {
    OptimizerFixture f(kSide, kSide);
    GaloreOptions options = plain(kSide, ProjectionSide::kLeft);
    options.adam.weight_decay = 0;
    options.update_gap = 50;
    options.on_refresh = OnRefresh::kRotate;
    options.history = history;
    const auto optimizer = make_galore(f.ledger, f.list, options);
    Parameter<float>& w = *f.list[0];
    double first = 0;
    for (uint64_t step = 0; step < kMost; ++step) {
      const std::vector<float> x(w.value, w.value + kN), slope = along(x, false),
                                                         noise = along(normals(kN, 1000 + step), true);
      const double loss = 0.5 * static_cast<double>(dot(x.data(), slope.data(), kN));
      if (step == 0) first = loss;
      if (loss < 0.01 * first) return step;
      for (size_t i = 0; i < kN; ++i) w.grad[i] = slope[i] + 0.3f * static_cast<float>(std::sqrt(loss)) * noise[i];
      optimizer->update(0, {step, rate, 1.0f});
    }
    return kMost;
  };
  uint64_t galore = kMost, natural = kMost;
  for (const float rate : {0.01f, 0.03f, 0.1f}) {
    galore = std::min(galore, steps_needed(0, rate));
    natural = std::min(natural, steps_needed(20, rate));
  }
  EXPECT_LE(3 * natural, 2 * galore) << "GaLore " << galore << ", Natural GaLore " << natural;
  EXPECT_LT(galore, kMost);
}

}  // namespace
}  // namespace mneme::train
