#include "weights/bitstack_decomposition.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/half.h"
#include "base/parallel.h"
#include "kernels/subspace.h"
#include "kernels/vector_ops.h"

namespace mneme::bitstack {
namespace {

/// |R| is dominated by its first direction and flat behind it: the directions of the bulk need more iterations than the
/// default of the subspace finder.
constexpr int kPowerIterations = 5;

/// y [n, rows] = x A^T, or y [n, columns] = x A.
void multiply(std::span<const float> a, size_t rows, size_t columns, const float* x, size_t n, bool transposed,
              float* y) {
  const kernels::VectorOps& ops = kernels::vector_ops();
  if (!transposed) {
    parallel_for(rows, 8, [&](size_t begin, size_t end) {
      for (size_t r = begin; r < end; ++r) {
        for (size_t t = 0; t < n; ++t) y[t * rows + r] = ops.dot(a.data() + r * columns, x + t * columns, columns);
      }
    });
    return;
  }
  constexpr size_t kRun = 256;  // columns whose sums stay in the nearest cache
  parallel_for((columns + kRun - 1) / kRun, 1, [&](size_t begin, size_t end) {
    for (size_t first = begin * kRun; first < std::min(columns, end * kRun); first += kRun) {
      const size_t width = std::min(kRun, columns - first);
      for (size_t t = 0; t < n; ++t) std::fill_n(y + t * columns + first, width, 0.0f);
      for (size_t r = 0; r < rows; ++r) {
        for (size_t t = 0; t < n; ++t)
          ops.add_scaled(a.data() + r * columns + first, x[t * rows + r], width, y + t * columns + first);
      }
    }
  });
}

double sum_of_squares(std::span<const float> w) {
  double sum = 0;
  for (float v : w) sum += static_cast<double>(v) * static_cast<double>(v);
  return sum;
}

void store_halves(const std::vector<float>& values, uint64_t n, uint64_t padded, std::byte* out) {
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t half = f32_to_f16(values[i]);
    if ((half & 0x7c00u) == 0x7c00u) {
      fail(ErrorCode::kInvalidArgument, "[decompose] expected factors below 65504, found {}", values[i]);
    }
    std::memcpy(out + 2 * (i / n * padded + i % n), &half, sizeof half);
  }
}

}  // namespace

std::vector<float> channel_scales(std::span<const float> mean_squares) {
  std::vector<float> out(mean_squares.size());
  double log_sum = 0;
  for (size_t j = 0; j < out.size(); ++j)
    log_sum += 0.5 * std::log(std::max(1e-30, static_cast<double>(mean_squares[j])));
  const double middle = std::exp(log_sum / static_cast<double>(std::max<size_t>(1, out.size())));
  // Half precision has to hold V / s.
  constexpr double kRange = 1000;
  for (size_t j = 0; j < out.size(); ++j) {
    out[j] =
        static_cast<float>(std::clamp(std::sqrt(static_cast<double>(mean_squares[j])) / middle, 1 / kRange, kRange));
  }
  return out;
}

Decomposition decompose(std::span<float> w, const BlockLayout& layout, std::span<const float> scales, uint32_t n_blocks,
                        Ledger& ledger) {
  const size_t rows = layout.rows, columns = layout.columns;
  const size_t k = std::min<uint64_t>({layout.vectors, layout.rows, layout.columns});
  const BlockLayout stored{layout.rows, layout.columns, k};
  Decomposition out;
  out.vectors = static_cast<uint32_t>(k);
  const auto for_rows = [&](auto&& work) {
    parallel_for(rows, 8, [&](size_t begin, size_t end) {
      for (size_t r = begin; r < end; ++r) work(r, w.data() + r * columns);
    });
  };
  if (!scales.empty()) {
    for_rows([&](size_t, float* row) { kernels::vector_ops().multiply(row, scales.data(), columns, row); });
  }
  out.errors.push_back(sum_of_squares(w));
  if (!std::isfinite(out.errors.front())) {
    fail(ErrorCode::kInvalidArgument, "[decompose] expected finite weights and inputs, found others");
  }
  Buffer memory(ledger, Tag::kScratch, rows * columns * sizeof(float), "magnitudes of a matrix");
  const std::span<float> magnitudes = memory.as<float>();
  kernels::SubspaceFinder finder(ledger, rows, columns, k, "a matrix to be decomposed", kPowerIterations);
  std::vector<float> u(k * rows), v(k * columns), scaled_v(k * columns);
  const auto product = [&](const float* x, size_t n, bool transposed, float* y) {
    multiply(magnitudes, rows, columns, x, n, transposed, y);
  };
  while (out.blocks.size() < n_blocks && out.errors.back() > 0) {
    for (size_t i = 0; i < w.size(); ++i) magnitudes[i] = std::abs(w[i]);
    finder.left({rows, columns, product}, k, out.blocks.size(), u.data());
    product(u.data(), k, true, v.data());  // rows are singular values times right singular vectors
    for (size_t j = 0; j < k; ++j) {
      float* const left = u.data() + j * rows;
      float* const right = v.data() + j * columns;
      const float singular = std::sqrt(kernels::vector_ops().dot(right, right, columns));
      for (size_t c = 0; c < columns; ++c) right[c] /= scales.empty() ? 1.0f : scales[c];
      // Both factors of a pair as large as one another, so that both keep their precision in half.
      const auto largest = [](const float* x, size_t n) {
        float most = 0;
        for (size_t i = 0; i < n; ++i) most = std::max(most, std::abs(x[i]));
        return most;
      };
      const float a = largest(left, rows), b = largest(right, columns);
      const float balance = singular > 0 && a > 0 && b > 0 ? std::sqrt(b / a) : 0.0f;
      for (size_t r = 0; r < rows; ++r) left[r] *= balance;
      for (size_t c = 0; c < columns; ++c) right[c] = balance > 0 ? right[c] / balance : 0.0f;
    }
    std::vector<std::byte> block(stored.bytes());
    pack_signs(stored, w.data(), block.data());
    store_halves(u, rows, stored.padded_rows(), block.data() + stored.u_offset());
    store_halves(v, columns, stored.padded_columns(), block.data() + stored.v_offset());
    // From here on the factors as they are stored.
    for (float& value : u) value = f16_to_f32(f32_to_f16(value));
    for (size_t i = 0; i < v.size(); ++i) {
      scaled_v[i] = f16_to_f32(f32_to_f16(v[i])) * (scales.empty() ? 1.0f : scales[i % columns]);
    }
    for_rows([&](size_t r, float* row) {
      std::vector<float> sum(columns, 0.0f);
      for (size_t j = 0; j < k; ++j)
        kernels::vector_ops().add_scaled(scaled_v.data() + j * columns, u[j * rows + r], columns, sum.data());
      for (size_t c = 0; c < columns; ++c) row[c] -= row[c] >= 0 ? sum[c] : -sum[c];
    });
    const double error = sum_of_squares(w);
    if (error >= out.errors.back()) break;  // half precision gives no more
    out.errors.push_back(error);
    out.blocks.push_back(std::move(block));
  }
  return out;
}

}  // namespace mneme::bitstack
