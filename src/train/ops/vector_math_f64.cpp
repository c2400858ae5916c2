#include <algorithm>
#include <cmath>

#include "train/ops/vector_math.h"

namespace mneme::train {

double dot(const double* a, const double* b, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

double dot3(const double* a, const double* b, const double* c, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += a[i] * b[i] * c[i];
  return sum;
}

double max_of(const double* x, size_t n) { return *std::max_element(x, x + n); }

void add(const double* a, const double* b, size_t n, double* y) {
  for (size_t i = 0; i < n; ++i) y[i] = a[i] + b[i];
}

void add_scaled(const double* x, double factor, size_t n, double* y) {
  for (size_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

void scale(const double* x, double factor, size_t n, double* y) {
  for (size_t i = 0; i < n; ++i) y[i] = factor * x[i];
}

void multiply_scaled(const double* a, const double* b, double factor, size_t n, double* y) {
  for (size_t i = 0; i < n; ++i) y[i] = a[i] * b[i] * factor;
}

void add_product(const double* a, const double* b, double factor, size_t n, double* y) {
  for (size_t i = 0; i < n; ++i) y[i] += a[i] * b[i] * factor;
}

double exp_shifted(double* x, double factor, double shift, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) {
    x[i] = std::exp(x[i] * factor - shift);
    sum += x[i];
  }
  return sum;
}

void softmax_backward(const double* p, double delta, double factor, size_t n, double* d) {
  for (size_t i = 0; i < n; ++i) d[i] = p[i] * factor * (d[i] - delta);
}

void swiglu(const double* gate, const double* up, size_t n, double* y) {
  for (size_t i = 0; i < n; ++i) y[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
}

void swiglu_backward(const double* gate, const double* up, const double* d_y, size_t n, double* d_gate, double* d_up) {
  for (size_t i = 0; i < n; ++i) {
    const double g = gate[i], u = up[i], dy = d_y[i];
    const double s = 1 / (1 + std::exp(-g));
    d_up[i] = dy * g * s;
    d_gate[i] = dy * u * s * (1 + g * (1 - s));
  }
}

void rotate_pairs(const double* x, const double* cosines, const double* sines, double direction, size_t n_pairs,
                  double* y) {
  for (size_t i = 0; i < n_pairs; ++i) {
    const double a = x[2 * i], b = x[2 * i + 1], c = cosines[i], s = sines[i] * direction;
    y[2 * i] = a * c - b * s;
    y[2 * i + 1] = a * s + b * c;
  }
}

}  // namespace mneme::train
