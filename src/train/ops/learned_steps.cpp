#include "train/ops/learned_steps.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "base/half.h"
#include "base/parallel.h"
#include "tensor/bipolar.h"

namespace mneme::train {
namespace {

using bipolar::kGroup;

/// Steps stay between the least and the largest normal number of half precision.
constexpr float kLeastStep = 0x1p-14f, kLargestStep = 65504.0f;

float stored_step(float step) {
  return f16_to_f32(f32_to_f16(std::clamp(std::abs(step), kLeastStep, kLargestStep)));
}

/// The grid of one group.
template <typename T>
struct Grid {
  Grid(int bits, T step) : top(static_cast<T>(bipolar::largest(bits))), s(stored_step(static_cast<float>(step))) {}

  /// From 0 to 2^bits - 1; of two that are equally near the upper one.
  T code(T w) const { return std::clamp(std::floor((w / s + top) * T{0.5} + T{0.5}), T{0}, top); }
  T level(T w) const { return 2 * code(w) - top; }

  T top, s;
};

/// Calls work(group, grid) for each group of the matrix.
template <typename T, typename Work>
void for_groups(int bits, const T* steps, size_t rows, size_t columns, Work work) {
  const size_t n = columns / kGroup;
  parallel_for(rows, std::max<size_t>(1, 4096 / columns), [&](size_t begin, size_t end) {
    for (size_t g = begin * n; g < end * n; ++g) work(g, Grid<T>(bits, steps[g]));
  });
}

}  // namespace

template <typename T>
void round_to_steps(int bits, const T* w, const T* steps, size_t rows, size_t columns, T* out) {
  for_groups(bits, steps, rows, columns, [&](size_t g, const Grid<T>& grid) {
    for (size_t i = g * kGroup; i < (g + 1) * kGroup; ++i) out[i] = grid.s * grid.level(w[i]);
  });
}

template <typename T>
void step_gradients(int bits, const T* w, const T* steps, size_t rows, size_t columns, const T* dq, bool add, T* dw,
                    bool add_steps, T* dsteps) {
  const T balance = T{1} / std::sqrt(static_cast<T>(kGroup) * static_cast<T>(bipolar::largest(bits)));
  for_groups(bits, steps, rows, columns, [&](size_t g, const Grid<T>& grid) {
    T sum = 0;
    for (size_t i = g * kGroup; i < (g + 1) * kGroup; ++i) {
      const T x = w[i] / grid.s, q = grid.level(w[i]);
      const bool inside = std::abs(x) < grid.top;
      sum += dq[i] * (inside ? q - x : q);
      const T passed = inside ? dq[i] : T{0};
      dw[i] = add ? dw[i] + passed : passed;
    }
    const T found = (steps[g] < 0 ? -balance : balance) * sum;
    dsteps[g] = add_steps ? dsteps[g] + found : found;
  });
}

template <typename T>
void start_steps(int bits, const T* w, size_t rows, size_t columns, T* steps) {
  constexpr int kTrials = 16;
  const size_t n = columns / kGroup;
  parallel_for(rows, std::max<size_t>(1, 256 / columns), [&](size_t begin, size_t end) {
    for (size_t g = begin * n; g < end * n; ++g) {
      const T* const group = w + g * kGroup;
      T largest = 0;
      for (size_t i = 0; i < kGroup; ++i) largest = std::max(largest, std::abs(group[i]));
      const auto error = [&](T step) {
        const Grid<T> grid(bits, step);
        T sum = 0;
        for (size_t i = 0; i < kGroup; ++i) sum += std::pow(group[i] - grid.s * grid.level(group[i]), T{2});
        return sum;
      };
      steps[g] = largest / static_cast<T>(bipolar::largest(bits));
      T least = error(steps[g]);
      for (int trial = 1; trial <= kTrials; ++trial) {
        const Grid<T> grid(bits, static_cast<T>(trial) / kTrials * largest / static_cast<T>(bipolar::largest(bits)));
        T product = 0, square = 0;
        for (size_t i = 0; i < kGroup; ++i) {
          const T q = grid.level(group[i]);
          product += q * group[i];
          square += q * q;
        }
        const T found = error(product / square);
        if (found >= least) continue;
        least = found;
        steps[g] = product / square;
      }
    }
  });
}

void encode_steps(int bits, const float* w, const float* steps, size_t columns, std::byte* row) {
  const size_t block = 2 + static_cast<size_t>(bits) * kGroup / 8;
  for (size_t g = 0; g < columns / kGroup; ++g) {
    const Grid<float> grid(bits, steps[g]);
    uint8_t codes[kGroup];
    for (size_t i = 0; i < kGroup; ++i) codes[i] = static_cast<uint8_t>(grid.code(w[g * kGroup + i]));
    bipolar::pack_group(bits, grid.s, codes, row + g * block);
  }
}

template void round_to_steps(int, const float*, const float*, size_t, size_t, float*);
template void round_to_steps(int, const double*, const double*, size_t, size_t, double*);
template void step_gradients(int, const float*, const float*, size_t, size_t, const float*, bool, float*, bool, float*);
template void step_gradients(int, const double*, const double*, size_t, size_t, const double*, bool, double*, bool,
                             double*);
template void start_steps(int, const float*, size_t, size_t, float*);
template void start_steps(int, const double*, size_t, size_t, double*);

}  // namespace mneme::train
