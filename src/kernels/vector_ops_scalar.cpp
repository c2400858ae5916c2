#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "base/half.h"
#include "kernels/vector_ops_tables.h"

namespace mneme::kernels {
namespace {

float dot(const float* a, const float* b, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * b[i];
  return static_cast<float>(sum);
}

void add(const float* a, const float* b, size_t n, float* y) {
  for (size_t i = 0; i < n; ++i) y[i] = a[i] + b[i];
}

void multiply(const float* a, const float* b, size_t n, float* y) {
  for (size_t i = 0; i < n; ++i) y[i] = a[i] * b[i];
}

void scale(const float* x, float factor, size_t n, float* y) {
  for (size_t i = 0; i < n; ++i) y[i] = factor * x[i];
}

void add_scaled(const float* x, float factor, size_t n, float* y) {
  for (size_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

void rms_norm(const float* x, const float* weight, float eps, size_t n, float* y) {
  double squares = 0;
  for (size_t i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * x[i];
  const double factor = 1 / std::sqrt(squares / static_cast<double>(n) + eps);
  for (size_t i = 0; i < n; ++i) y[i] = static_cast<float>(x[i] * factor * weight[i]);
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, size_t n, float* y) {
  double sum = 0, squares = 0;
  for (size_t i = 0; i < n; ++i) sum += x[i];
  const double mean = sum / static_cast<double>(n);
  for (size_t i = 0; i < n; ++i) squares += (x[i] - mean) * (x[i] - mean);
  const double factor = 1 / std::sqrt(squares / static_cast<double>(n) + eps);
  for (size_t i = 0; i < n; ++i) {
    y[i] = static_cast<float>((x[i] - mean) * factor * weight[i] + (bias != nullptr ? bias[i] : 0.0f));
  }
}

double silu_of(double x) {
  return x / (1 + std::exp(-x));
}

double gelu_of(double x) {
  constexpr double kTwiceSqrt2OverPi = 1.5957691216057308;
  return x / (1 + std::exp(-kTwiceSqrt2OverPi * (x + 0.044715 * x * x * x)));
}

void silu_multiply(const float* gate, const float* up, size_t n, float* y) {
  for (size_t i = 0; i < n; ++i) y[i] = static_cast<float>(silu_of(gate[i]) * up[i]);
}

void gelu_multiply(const float* gate, const float* up, size_t n, float* y) {
  for (size_t i = 0; i < n; ++i) y[i] = static_cast<float>(gelu_of(gate[i]) * up[i]);
}

void relu_multiply(const float* gate, const float* up, size_t n, float* y) {
  for (size_t i = 0; i < n; ++i) y[i] = (gate[i] < 0 ? 0 : gate[i]) * up[i];
}

void gelu(const float* x, size_t n, float* y) {
  for (size_t i = 0; i < n; ++i) y[i] = static_cast<float>(gelu_of(x[i]));
}

void softmax(const float* x, size_t n, float* y) {
  float max = -std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < n; ++i) max = x[i] > max || std::isnan(x[i]) ? x[i] : max;
  if (max == -std::numeric_limits<float>::infinity()) {
    std::fill_n(y, n, 0.0f);
    return;
  }
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(x[i]) - max);
  for (size_t i = 0; i < n; ++i) y[i] = static_cast<float>(std::exp(static_cast<double>(x[i]) - max) / sum);
}

void softcap(const float* x, float cap, size_t n, float* y) {
  for (size_t i = 0; i < n; ++i) y[i] = static_cast<float>(cap * std::tanh(static_cast<double>(x[i]) / cap));
}

void rotate(float& a, float& b, float cosine, float sine) {
  const float x = a, y = b;
  a = x * cosine - y * sine;
  b = x * sine + y * cosine;
}

void rope_halves(float* x, const float* cosines, const float* sines, size_t n_pairs) {
  for (size_t i = 0; i < n_pairs; ++i) rotate(x[i], x[i + n_pairs], cosines[i], sines[i]);
}

void rope_interleaved(float* x, const float* cosines, const float* sines, size_t n_pairs) {
  for (size_t i = 0; i < n_pairs; ++i) rotate(x[2 * i], x[2 * i + 1], cosines[i], sines[i]);
}

/// Stored halves may lie at any address, so they are copied and not dereferenced.
template <uint16_t (*convert)(float)>
void to_half(const float* x, size_t n, void* y) {
  auto* bytes = static_cast<std::byte*>(y);
  for (size_t i = 0; i < n; ++i) {
    const uint16_t bits = convert(x[i]);
    std::memcpy(bytes + 2 * i, &bits, 2);
  }
}

template <float (*convert)(uint16_t)>
void from_half(const void* x, size_t n, float* y) {
  const auto* bytes = static_cast<const std::byte*>(x);
  for (size_t i = 0; i < n; ++i) {
    uint16_t bits;
    std::memcpy(&bits, bytes + 2 * i, 2);
    y[i] = convert(bits);
  }
}

}  // namespace

const VectorOps& scalar_vector_ops() {
  static constexpr VectorOps kTable = {
      .target = "scalar",
      .dot = dot,
      .add = add,
      .multiply = multiply,
      .scale = scale,
      .add_scaled = add_scaled,
      .rms_norm = rms_norm,
      .layer_norm = layer_norm,
      .silu_multiply = silu_multiply,
      .gelu_multiply = gelu_multiply,
      .relu_multiply = relu_multiply,
      .gelu = gelu,
      .softmax = softmax,
      .softcap = softcap,
      .rope_halves = rope_halves,
      .rope_interleaved = rope_interleaved,
      .f32_to_f16 = to_half<mneme::f32_to_f16>,
      .f32_to_bf16 = to_half<mneme::f32_to_bf16>,
      .f16_to_f32 = from_half<mneme::f16_to_f32>,
      .bf16_to_f32 = from_half<mneme::bf16_to_f32>,
  };
  return kTable;
}

}  // namespace mneme::kernels
