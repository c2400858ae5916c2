#include "tensor/symmetric_eigen.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "base/philox.h"

namespace mneme {
namespace {

double dot(const double* x, const double* y, size_t n) {
  // Four sums, so that they are not one chain.
  double sum[4] = {};
  size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    for (size_t j = 0; j < 4; ++j) sum[j] += x[i + j] * y[i + j];
  }
  for (; i < n; ++i) sum[0] += x[i] * y[i];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

void add_scaled(const double* x, double factor, size_t n, double* y) {
  for (size_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

/// a = Q^T T Q with T tridiagonal: `diagonal` [n], `beside` [n] (beside[i] links i - 1 and i), rows of `q` [n, n].
void tridiagonalise(double* a, size_t n, double* diagonal, double* beside, double* q) {
  // Step i reflects row i so that only its neighbour remains: H = I - v v^T / h with v in the first i entries of row i.
  std::vector<double> p(n), scale(n);
  for (size_t i = n - 1; i > 0; --i) {
    double* const v = a + i * n;
    const double norm = std::sqrt(dot(v, v, i));
    diagonal[i] = v[i];
    scale[i] = 0;
    if (i == 1 || norm == 0) {
      beside[i] = v[i - 1];
      continue;
    }
    beside[i] = v[i - 1] >= 0 ? -norm : norm;
    const double h = norm * norm - v[i - 1] * beside[i];
    v[i - 1] -= beside[i];
    scale[i] = h;
    // A := H A H = A - v w^T - w v^T with p = A v / h, w = p - (v . p / 2 h) v. Only the lower triangle is kept.
    std::fill_n(p.begin(), i, 0.0);
    for (size_t r = 0; r < i; ++r) {
      const double* const row = a + r * n;
      p[r] += dot(row, v, r + 1);
      add_scaled(row, v[r], r, p.data());
    }
    for (size_t r = 0; r < i; ++r) p[r] /= h;
    const double k = dot(p.data(), v, i) / (2 * h);
    add_scaled(v, -k, i, p.data());
    for (size_t r = 0; r < i; ++r) {
      double* const row = a + r * n;
      add_scaled(p.data(), -v[r], r + 1, row);
      add_scaled(v, -p[r], r + 1, row);
    }
  }
  diagonal[0] = a[0];
  beside[0] = 0;
  // T = H ... H A H ... H with the largest reflection first, so Q = H_2 ... H_{n-1}: each works on the columns before
  // it.
  std::fill_n(q, n * n, 0.0);
  for (size_t i = 0; i < n; ++i) q[i * n + i] = 1;
  for (size_t i = 2; i < n; ++i) {
    if (scale[i] == 0) continue;
    const double* const v = a + i * n;
    for (size_t r = 0; r < i; ++r) add_scaled(v, -dot(q + r * n, v, i) / scale[i], i, q + r * n);
  }
}

/// Diagonalises T; rows of `q` turn with it.
void diagonalise(size_t n, double* diagonal, double* beside, double* q) {
  for (size_t i = 1; i < n; ++i) beside[i - 1] = beside[i];  // now beside[i] links i and i + 1
  beside[n - 1] = 0;
  for (size_t l = 0; l < n; ++l) {
    for (int step = 0;; ++step) {
      size_t m = l;
      for (; m + 1 < n; ++m) {
        const double size = std::abs(diagonal[m]) + std::abs(diagonal[m + 1]);
        if (std::abs(beside[m]) <= std::numeric_limits<double>::epsilon() * size) break;
      }
      constexpr int kMostSteps = 60;
      if (m == l || step == kMostSteps) break;
      double g = (diagonal[l + 1] - diagonal[l]) / (2 * beside[l]), r = std::hypot(g, 1.0);
      g = diagonal[m] - diagonal[l] + beside[l] / (g + std::copysign(r, g));
      double s = 1, c = 1, p = 0;
      bool split = false;
      for (size_t i = m; i-- > l;) {
        double f = s * beside[i];
        const double b = c * beside[i];
        r = std::hypot(f, g);
        beside[i + 1] = r;
        if (r == 0) {
          diagonal[i + 1] -= p;
          beside[m] = 0;
          split = true;
          break;
        }
        s = f / r;
        c = g / r;
        g = diagonal[i + 1] - p;
        r = (diagonal[i] - g) * s + 2 * c * b;
        p = s * r;
        diagonal[i + 1] = g + p;
        g = c * r - b;
        double* const x = q + i * n;
        double* const y = x + n;
        for (size_t k = 0; k < n; ++k) {
          f = y[k];
          y[k] = s * x[k] + c * f;
          x[k] = c * x[k] - s * f;
        }
      }
      if (split) continue;
      diagonal[l] -= p;
      beside[l] = g;
      beside[m] = 0;
    }
  }
}

void check_finite(const double* a, size_t n) {
  for (size_t i = 0; i < n * n; ++i) {
    if (!std::isfinite(a[i]))
      fail(ErrorCode::kInvalidArgument, "[eigenvectors] expected finite numbers, found {}", a[i]);
  }
}

/// Gram-Schmidt, twice; a row that depends on earlier ones becomes zero.
void orthonormalise(double* x, size_t n, size_t columns) {
  for (size_t i = 0; i < n; ++i) {
    double* const row = x + i * columns;
    const double before = std::sqrt(dot(row, row, columns));
    for (int pass = 0; pass < 2; ++pass) {
      for (size_t j = 0; j < i; ++j) add_scaled(x + j * columns, -dot(row, x + j * columns, columns), columns, row);
    }
    const double left = std::sqrt(dot(row, row, columns));
    const double factor = left > 1e-12 * before ? 1 / left : 0;
    for (size_t c = 0; c < columns; ++c) row[c] *= factor;
  }
}

}  // namespace

void symmetric_eigen(double* a, size_t n, double* values, double* vectors) {
  if (n == 0) return;
  check_finite(a, n);
  std::vector<double> diagonal(n), beside(n);
  tridiagonalise(a, n, diagonal.data(), beside.data(), vectors);
  diagonalise(n, diagonal.data(), beside.data(), vectors);
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) { return diagonal[i] > diagonal[j]; });
  for (size_t i = 0; i < n; ++i) {
    values[i] = diagonal[order[i]];
    std::copy_n(vectors + order[i] * n, n, a + i * n);
  }
  std::copy_n(a, n * n, vectors);
}

void dominant_eigenvectors(double* a, size_t n, size_t rank, double* vectors) {
  constexpr size_t kOversampling = 16, kSmall = 256;
  const size_t wide = rank + kOversampling;
  if (n <= kSmall || wide > n / 2) {
    std::vector<double> values(n), all(n * n);
    symmetric_eigen(a, n, values.data(), all.data());
    std::copy_n(all.begin(), rank * n, vectors);
    return;
  }
  check_finite(a, n);
  std::vector<double> x(wide * n), y(wide * n);
  PhiloxStream random(0x65696765);
  for (double& value : x) value = static_cast<double>(random.next_normal());
  constexpr int kIterations = 4;
  for (int iteration = 0; iteration <= kIterations; ++iteration) {
    orthonormalise(x.data(), wide, n);
    std::fill(y.begin(), y.end(), 0.0);
    constexpr size_t kTogether = 8;  // rows of y that stay in the cache while `a` passes by
    for (size_t first = 0; first < wide; first += kTogether) {
      const size_t last = std::min(wide, first + kTogether);
      for (size_t k = 0; k < n; ++k) {
        for (size_t i = first; i < last; ++i) add_scaled(a + k * n, x[i * n + k], n, y.data() + i * n);
      }
    }
    if (iteration < kIterations) std::swap(x, y);
  }
  // Inside the subspace: eigenvectors of x a x^T.
  std::vector<double> inner(wide * wide), values(wide), turn(wide * wide);
  for (size_t i = 0; i < wide; ++i) {
    for (size_t j = 0; j < wide; ++j) inner[i * wide + j] = dot(y.data() + i * n, x.data() + j * n, n);
  }
  symmetric_eigen(inner.data(), wide, values.data(), turn.data());
  std::fill_n(vectors, rank * n, 0.0);
  for (size_t i = 0; i < rank; ++i) {
    for (size_t j = 0; j < wide; ++j) add_scaled(x.data() + j * n, turn[i * wide + j], n, vectors + i * n);
  }
}

}  // namespace mneme
