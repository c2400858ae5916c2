#include "kernels/aqlm_product.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/parallel.h"
#include "kernels/matmul_test_data.h"
#include "kernels/op_check.h"
#include "tensor/aqlm_test_matrix.h"

namespace mneme::kernels {
namespace {

using aqlm::Entries;
using aqlm::Scheme;

std::vector<float> run(const Matrix& w, const std::vector<float>& x, const float* bias = nullptr) {
  const size_t n_tokens = x.size() / w.columns;
  std::vector<float> y(n_tokens * w.rows);
  Ledger ledger;
  MatmulInput input(ledger);
  input.set(x.data(), n_tokens, w.columns);
  matmul(w, input, bias, y.data(), w.rows);
  const DType types[] = {w.dtype};
  EXPECT_LE(ledger.peak(Tier::kRam), matmul_scratch_bytes(n_tokens, w.columns, types));
  return y;
}

std::vector<float> decoded(const aqlm::TestMatrix& m) {
  std::vector<float> out(m.layout.rows * m.layout.columns);
  weight_format(DType::kAqlm)
      .decode_tile(m.view(), {0, m.layout.rows, 0, m.layout.columns}, out.data(), m.layout.columns);
  return out;
}

/// The product with the decoded matrix, with an error of `relative` of the sum of magnitudes.
Expected dense(const std::vector<float>& w, const std::vector<float>& x, size_t rows, size_t i, double relative) {
  const size_t columns = w.size() / rows;
  double sum = 0, size = 0;
  for (size_t c = 0; c < columns; ++c) {
    const double part = static_cast<double>(w[i % rows * columns + c]) * static_cast<double>(x[i / rows * columns + c]);
    sum += part;
    size += std::abs(part);
  }
  return {sum, relative * size + 1e-30};
}

struct Case {
  size_t rows, columns;
  Scheme scheme;
  Entries entries;
};
const Case kCases[] = {{256, 128, {2, 8, 8}, Entries::kBf16}, {130, 264, {1, 8, 4}, Entries::kInt8},
                       {33, 100, {2, 6, 8}, Entries::kInt8},  {64, 61, {3, 5, 4}, Entries::kBf16},
                       {70, 300, {1, 4, 1}, Entries::kBf16},  {40, 77, {1, 3, 1}, Entries::kInt8},
                       {96, 90, {1, 2, 1}, Entries::kBf16},   {48, 64, {4, 7, 2}, Entries::kInt8},
                       {50, 60, {8, 1, 8}, Entries::kBf16},   {33, 520, {2, 12, 8}, Entries::kBf16}};

TEST(AqlmProduct, TilesAreTheDenseProduct) {
  on_every_target([] {
    for (const Case& c : kCases) {
      const aqlm::TestMatrix m(c.rows, c.columns, c.scheme, c.entries, c.rows);
      const Matrix w = Matrix::from(m.view());
      const size_t n_tokens = 7;
      ASSERT_FALSE(wants_tables(w, n_tokens));
      const std::vector<float> x = test_activations(n_tokens, c.columns, 1), full = decoded(m);
      EXPECT_TRUE(close_to(run(w, x), [&](size_t i) { return dense(full, x, c.rows, i, 1e-5); }))
          << c.rows << " x " << c.columns;
    }
  });
}

/// Tables as the header describes them, computed plainly, for one token; `step` sums half a step of each look-up.
std::vector<double> by_tables(const aqlm::TestMatrix& m, const float* x, bool rounded,
                              std::vector<double>* half_steps) {
  const aqlm::Layout& at = m.layout;
  const size_t g = at.scheme.group, n_books = at.scheme.codebooks, n = size_t{1} << at.scheme.bits,
               n_tables = at.groups() * n_books;
  std::vector<double> y(at.rows), steps(at.rows);
  for (size_t first = 0; first < n_tables; first += 16) {
    const size_t last = std::min(n_tables, first + 16);
    std::vector<double> tables((last - first) * n);
    double most = 0;
    for (size_t t = first; t < last; ++t) {
      for (size_t k = 0; k < n; ++k) {
        double sum = 0;
        for (size_t i = 0; i < g && t / n_books * g + i < at.columns; ++i) {
          sum += static_cast<double>(m.books.values[(t % n_books * n + k) * g + i]) *
                 static_cast<double>(x[t / n_books * g + i]);
        }
        tables[(t - first) * n + k] = sum;
        most = std::max(most, std::abs(sum));
      }
    }
    const double step = most / 127;
    for (size_t r = 0; r < at.rows; ++r) {
      const double scale = static_cast<double>(m.scales[r]);
      for (size_t t = first; t < last; ++t) {
        const uint16_t code = m.codes[(r / aqlm::kStripe * n_tables + t) * aqlm::kStripe + r % aqlm::kStripe];
        const double value = tables[(t - first) * n + code];
        y[r] += scale * (rounded && step > 0 ? step * std::nearbyint(value / step) : value);
        steps[r] += std::abs(scale) * step / 2;
      }
    }
  }
  if (half_steps != nullptr) *half_steps = steps;
  return y;
}

TEST(AqlmProduct, TablesAreWithinTheirBoundOfTheDenseProduct) {
  on_every_target([] {
    for (const Case& c : kCases) {
      if (c.scheme.bits > 8) continue;
      // Enough rows that tables pay.
      const size_t rows = std::max(c.rows, (size_t{2} << std::max(4u, c.scheme.bits)) / c.scheme.group + 3);
      const aqlm::TestMatrix m(rows, c.columns, c.scheme, c.entries, rows);
      const Matrix w = Matrix::from(m.view());
      for (size_t n_tokens : {1, 3}) {
        ASSERT_TRUE(wants_tables(w, n_tokens)) << rows << " x " << c.columns;
        const std::vector<float> x = test_activations(n_tokens, c.columns, 2), full = decoded(m), bias(rows, 0.25f);
        const std::vector<float> y = run(w, x, bias.data());
        std::vector<std::vector<double>> bounds(n_tokens);
        for (size_t t = 0; t < n_tokens; ++t) by_tables(m, x.data() + t * c.columns, true, &bounds[t]);
        double error = 0, size = 0;
        EXPECT_TRUE(close_to(y,
                             [&](size_t i) {
                               Expected want = dense(full, x, rows, i, 1e-5);
                               want.value += 0.25;
                               want.bound += bounds[i / rows][i % rows] * 1.001;
                               error +=
                                   (static_cast<double>(y[i]) - want.value) * (static_cast<double>(y[i]) - want.value);
                               size += want.value * want.value;
                               return want;
                             }))
            << rows << " x " << c.columns;
        EXPECT_LT(std::sqrt(error / size), 0.03) << rows << " x " << c.columns;
      }
    }
  });
}

/// The bound would also let a wrong table of small values pass; sums of integers must be right to rounding.
TEST(AqlmProduct, TablesAreTheSumsOfTheirRoundedEntries) {
  on_every_target([] {
    for (const Scheme& scheme : {Scheme{2, 8, 8}, {1, 7, 4}, {3, 6, 4}, {2, 5, 8}, {1, 4, 1}, {1, 3, 2}, {2, 2, 4}}) {
      const aqlm::TestMatrix m(160, 96, scheme, Entries::kBf16, 9);
      const std::vector<float> x = test_activations(1, 96, 3);
      ASSERT_TRUE(wants_tables(Matrix::from(m.view()), 1));
      const std::vector<float> y = run(Matrix::from(m.view()), x);
      std::vector<double> half_steps;
      const std::vector<double> want = by_tables(m, x.data(), true, &half_steps);
      // An entry half-way between levels may go either way: one step of a table, of which there are many.
      const double n_tables = static_cast<double>(m.layout.groups() * scheme.codebooks);
      size_t exact = 0;
      for (size_t r = 0; r < y.size(); ++r) {
        const double error = std::abs(static_cast<double>(y[r]) - want[r]);
        EXPECT_LE(error, 4 * half_steps[r] / n_tables * 4 + 1e-6) << r;
        exact += error < 1e-4 * (1 + std::abs(want[r]));
      }
      EXPECT_GT(exact, y.size() * 9 / 10) << scheme.codebooks << "x" << scheme.bits;
    }
  });
}

TEST(AqlmProduct, TargetsAgreeToTheBit) {
  const aqlm::TestMatrix m(256, 120, {2, 8, 8}, Entries::kInt8, 10);
  const std::vector<float> x = test_activations(2, 120, 4);
  std::vector<std::vector<float>> all;
  on_every_target([&] { all.push_back(run(Matrix::from(m.view()), x)); });
  for (const auto& y : all) EXPECT_EQ(y, all.front());
}

TEST(AqlmProduct, AnyThreadsGiveTheSameBits) {
  const aqlm::TestMatrix m(512, 256, {2, 8, 8}, Entries::kInt8, 11);
  const std::vector<float> x = test_activations(1, 256, 5);
  const int before = n_threads();
  set_n_threads(1);
  const std::vector<float> one = run(Matrix::from(m.view()), x);
  set_n_threads(3);
  EXPECT_EQ(run(Matrix::from(m.view()), x), one);
  set_n_threads(before);
}

TEST(AqlmProduct, OddInputs) {
  on_every_target([] {
    const aqlm::TestMatrix m(256, 64, {2, 8, 8}, Entries::kBf16, 12);
    std::vector<float> x(64, 0.0f);
    for (float v : run(Matrix::from(m.view()), x)) EXPECT_EQ(v, 0.0f);
    x[5] = std::numeric_limits<float>::quiet_NaN();
    for (float v : run(Matrix::from(m.view()), x)) EXPECT_TRUE(std::isnan(v));
    x[5] = std::numeric_limits<float>::infinity();
    for (float v : run(Matrix::from(m.view()), x)) EXPECT_FALSE(std::isfinite(v));
  });
}

}  // namespace
}  // namespace mneme::kernels
