#include "weights/clipping.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

namespace mneme {
namespace {

constexpr float kNoBorder = std::numeric_limits<float>::infinity();
constexpr size_t kBins = 2048;

float percentile_border(std::span<const float> row) {
  std::vector<float> sizes(row.size());
  std::transform(row.begin(), row.end(), sizes.begin(), [](float v) { return std::fabs(v); });
  const size_t rank = std::min(row.size() - 1, static_cast<size_t>(0.999 * static_cast<double>(row.size())));
  std::nth_element(sizes.begin(), sizes.begin() + static_cast<long>(rank), sizes.end());
  return sizes[rank];
}

float mse_border(std::span<const float> row, float largest, const float* importance, DType to) {
  const DTypeInfo& info = dtype_info(to);
  std::vector<float> clipped(row.size()), back(row.size());
  std::vector<std::byte> blocks(row_bytes(to, row.size()));
  double least = HUGE_VAL;
  float best = kNoBorder;
  for (int step = 0; step < 16; ++step) {
    const float border = largest * (1.0f - 0.04f * static_cast<float>(step));
    for (size_t i = 0; i < row.size(); ++i) clipped[i] = std::clamp(row[i], -border, border);
    info.encode(clipped.data(), importance, blocks.data(), row.size());
    info.decode(blocks.data(), back.data(), row.size());
    double error = 0;
    for (size_t i = 0; i < row.size(); ++i) {
      const double e = static_cast<double>(row[i]) - static_cast<double>(back[i]);
      error += e * e * (importance == nullptr ? 1.0 : static_cast<double>(importance[i]));
    }
    if (error < least) {
      least = error;
      best = border;
    }
  }
  return best;
}

/// Levels of the magnitude that a type has, about.
size_t magnitude_levels(DType to) {
  const DTypeInfo& info = dtype_info(to);
  const double bits = 8.0 * static_cast<double>(info.block_bytes) / static_cast<double>(info.block_elements);
  return size_t{1} << std::clamp(static_cast<int>(bits) - 1, 1, 7);
}

/// KL divergence of the first `n` bins, with the rest counted into the last, from the same merged into `levels` steps
/// and spread evenly over the bins that were not empty.
double kl_divergence(const std::array<double, kBins>& counts, size_t n, size_t levels) {
  std::vector<double> p(counts.begin(), counts.begin() + static_cast<long>(n)), q(n, 0.0);
  for (size_t i = n; i < kBins; ++i) p[n - 1] += counts[i];
  double total_p = 0, total_q = 0;
  for (size_t level = 0; level < levels; ++level) {
    const size_t begin = level * n / levels, end = (level + 1) * n / levels;
    double sum = 0, filled = 0;
    for (size_t i = begin; i < end; ++i) {
      sum += counts[i];
      filled += p[i] > 0;
    }
    for (size_t i = begin; i < end; ++i) q[i] = p[i] > 0 ? sum / filled : 0;
  }
  constexpr double kSmooth = 1e-4;
  for (size_t i = 0; i < n; ++i) {
    p[i] += kSmooth;
    q[i] += kSmooth;
    total_p += p[i];
    total_q += q[i];
  }
  double divergence = 0;
  for (size_t i = 0; i < n; ++i) divergence += p[i] / total_p * std::log(p[i] / total_p * total_q / q[i]);
  return divergence;
}

float kl_border(std::span<const float> row, float largest, DType to) {
  std::array<double, kBins> counts{};
  for (float v : row) {
    const auto bin = static_cast<size_t>(std::fabs(v) / largest * static_cast<float>(kBins));
    counts[std::min(bin, kBins - 1)] += 1;
  }
  const size_t levels = magnitude_levels(to);
  double least = HUGE_VAL;
  size_t best = kBins;
  for (size_t n = std::max<size_t>(512, levels); n <= kBins; n += 64) {
    const double divergence = kl_divergence(counts, n, levels);
    if (divergence < least) {
      least = divergence;
      best = n;
    }
  }
  return largest * static_cast<float>(best) / static_cast<float>(kBins);
}

}  // namespace

std::optional<Clipping> find_clipping(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, Clipping>, 4> kNames = {{{"none", Clipping::kNone},
                                                                            {"percentile", Clipping::kPercentile},
                                                                            {"mse", Clipping::kMse},
                                                                            {"kl", Clipping::kKl}}};
  for (const auto& [known, clipping] : kNames) {
    if (known == name) return clipping;
  }
  return std::nullopt;
}

float clip_border(Clipping clipping, std::span<const float> row, const float* importance, DType to) {
  float largest = 0;
  for (float v : row) largest = std::max(largest, std::fabs(v));
  if (clipping == Clipping::kNone || !(largest > 0) || !std::isfinite(largest)) return kNoBorder;
  if (clipping == Clipping::kPercentile) return percentile_border(row);
  if (clipping == Clipping::kMse) return mse_border(row, largest, importance, to);
  return kl_border(row, largest, to);
}

}  // namespace mneme
