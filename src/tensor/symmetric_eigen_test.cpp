#include "tensor/symmetric_eigen.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"
#include "base/philox.h"

namespace mneme {
namespace {

/// B B^T of a random B [n, depth] whose column k has the factor decay^k.
std::vector<double> gram(size_t n, size_t depth, double decay) {
  PhiloxStream random(n);
  std::vector<double> b(n * depth), out(n * n);
  for (size_t i = 0; i < b.size(); ++i) {
    b[i] = static_cast<double>(random.next_normal()) * std::pow(decay, static_cast<double>(i % depth));
  }
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) {
      for (size_t k = 0; k < depth; ++k) out[i * n + j] += b[i * depth + k] * b[j * depth + k];
    }
  }
  return out;
}

double product(const double* x, const double* y, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

TEST(SymmetricEigen, VectorsAreOrthonormalAndEigen) {
  for (const size_t n : {1u, 2u, 3u, 17u, 64u, 130u}) {
    SCOPED_TRACE(n);
    std::vector<double> a = gram(n, n, 0.95), copy = a, values(n), vectors(n * n);
    for (size_t i = 0; i < n; ++i) a[i * n + i] = copy[i * n + i] -= 0.5;  // negative ones too
    symmetric_eigen(copy.data(), n, values.data(), vectors.data());
    for (size_t i = 0; i < n; ++i) {
      EXPECT_GE(i > 0 ? values[i - 1] : values[0], values[i]);
      for (size_t j = 0; j <= i; ++j) {
        EXPECT_NEAR(product(&vectors[i * n], &vectors[j * n], n), i == j ? 1 : 0, 1e-11);
      }
      for (size_t r = 0; r < n; ++r) {
        EXPECT_NEAR(product(&a[r * n], &vectors[i * n], n), values[i] * vectors[i * n + r], 1e-10 * values[0] + 1e-11);
      }
    }
  }
}

TEST(SymmetricEigen, DegenerateMatrices) {
  std::vector<double> zeros(25), values(5), vectors(25);
  symmetric_eigen(zeros.data(), 5, values.data(), vectors.data());
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(values[i], 0);
    EXPECT_NEAR(product(&vectors[i * 5], &vectors[i * 5], 5), 1, 1e-14);
  }
  std::vector<double> bad(4);
  bad[1] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(symmetric_eigen(bad.data(), 2, values.data(), vectors.data()), Error);
}

TEST(SymmetricEigen, DominantVectorsLoseNoMoreThanTheBest) {
  constexpr size_t kN = 600, kRank = 40;
  const std::vector<double> a = gram(kN, 200, 0.97);
  std::vector<double> copy = a, values(kN), vectors(kN * kN), some(kRank * kN);
  symmetric_eigen(copy.data(), kN, values.data(), vectors.data());
  copy = a;
  dominant_eigenvectors(copy.data(), kN, kRank, some.data());
  double total = 0, best = 0, kept = 0;
  for (size_t i = 0; i < kN; ++i) total += values[i];
  for (size_t i = 0; i < kRank; ++i) {
    best += values[i];
    for (size_t r = 0; r < kN; ++r) kept += some[i * kN + r] * product(&a[r * kN], &some[i * kN], kN);
    for (size_t j = 0; j <= i; ++j) EXPECT_NEAR(product(&some[i * kN], &some[j * kN], kN), i == j ? 1 : 0, 1e-9);
  }
  EXPECT_LE(kept, best * (1 + 1e-12));
  EXPECT_LT(total - kept, (total - best) * 1.001);
}

}  // namespace
}  // namespace mneme
