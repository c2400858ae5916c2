#include "train/ops/ternary.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "base/half.h"
#include "base/parallel.h"

namespace mneme::train {
namespace {

constexpr size_t kBlockColumns = 32;
constexpr float kLeastMaximum = 1e-5f;

template <typename T>
float scale_of(const T* w, size_t rows, size_t columns) {
  std::vector<double> sums(rows);
  parallel_for(rows, 16, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      double sum = 0;
      for (size_t c = 0; c < columns; ++c) sum += std::fabs(static_cast<double>(w[i * columns + c]));
      sums[i] = sum;
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return f16_to_f32(f32_to_f16(static_cast<float>(total / static_cast<double>(rows * columns))));
}

template <typename T>
void round_block(const T* x, size_t n, T* y) {
  uint32_t largest = 0;
  for (size_t i = 0; i < n; ++i) {
    largest = std::max(largest, std::bit_cast<uint32_t>(static_cast<float>(x[i])) & 0x7fffffffu);
  }
  // The exponent of the largest value less 6, one more when its mantissa would round to 128. The bounds are those of
  // the products of a running model.
  constexpr int kLowest = -120, kHighest = 104;
  const int e = std::max(static_cast<int>((largest + 0x1ffffu) >> 23) - 133, kLowest);
  const float scale = e > kHighest ? std::numeric_limits<float>::quiet_NaN() : std::ldexp(1.0f, e);
  const float inverse = std::ldexp(1.0f, -e);
  for (size_t i = 0; i < n; ++i) {
    constexpr float kRound = 0x1.8p23f;  // adding and taking it away leaves the nearest integer, ties to even
    const float level = (static_cast<float>(x[i]) * inverse + kRound) - kRound;
    y[i] = static_cast<T>(scale * level);
  }
}

template <typename T>
void round_token(const T* x, size_t n, T* y) {
  float largest = kLeastMaximum;
  for (size_t i = 0; i < n; ++i) {
    const float magnitude = std::fabs(static_cast<float>(x[i]));
    if (!(magnitude <= largest)) largest = magnitude;  // NaN stays
  }
  const float factor = 127.0f / largest, inverse = largest / 127.0f;
  for (size_t i = 0; i < n; ++i) {
    const float level = std::nearbyint(static_cast<float>(x[i]) * factor);
    y[i] = static_cast<T>(inverse * (level < -128.0f ? -128.0f : level > 127.0f ? 127.0f : level));
  }
}

}  // namespace

float ternary_scale(const float* w, size_t rows, size_t columns) {
  return scale_of(w, rows, columns);
}
float ternary_scale(const double* w, size_t rows, size_t columns) {
  return scale_of(w, rows, columns);
}

template <typename T>
T ternary_codes(const T* w, size_t rows, size_t columns, T* codes) {
  const T scale = ternary_scale(w, rows, columns), inverse = scale > 0 ? T{1} / scale : T{0};
  parallel_for(rows * columns, 16384, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      const T v = w[i] * inverse;
      codes[i] = v > T{0.5} ? T{1} : v < T{-0.5} ? T{-1} : T{0};
    }
  });
  return scale;
}

template <typename T>
void round_activations(ActivationRounding rounding, const T* x, size_t rows, size_t columns, T* y) {
  parallel_for(rows, std::max<size_t>(1, 16384 / columns), [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) {
      const T* from = x + row * columns;
      T* to = y + row * columns;
      switch (rounding) {
        case ActivationRounding::kNone:
          if (from != to) std::copy_n(from, columns, to);
          break;
        case ActivationRounding::kBlocks:
          for (size_t c = 0; c < columns; c += kBlockColumns) {
            round_block(from + c, std::min(kBlockColumns, columns - c), to + c);
          }
          break;
        case ActivationRounding::kTokens:
          round_token(from, columns, to);
          break;
      }
    }
  });
}

template float ternary_codes(const float*, size_t, size_t, float*);
template double ternary_codes(const double*, size_t, size_t, double*);
template void round_activations(ActivationRounding, const float*, size_t, size_t, float*);
template void round_activations(ActivationRounding, const double*, size_t, size_t, double*);

}  // namespace mneme::train
