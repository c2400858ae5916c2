#include "weights/codebook_kmeans.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/parallel.h"
#include "base/philox.h"
#include "kernels/codebook_search.h"

namespace mneme {
namespace {

/// Rows that share the constants of a group's entries.
constexpr size_t kBlockRows = 64;
/// Points that are enough for a centre.
constexpr size_t kPointsACentre = 256, kLeastPoints = 65536;

/// For all groups the nearest entry and its weighted squared distance; distances may be null.
void assign(std::span<const float> points, size_t columns, size_t group, std::span<const float> importance,
            const TransposedBook& book, uint16_t* codes, size_t stride, float* distances) {
  const kernels::CodebookOps& ops = kernels::codebook_ops();
  const size_t rows = points.size() / columns, groups = columns / group;
  parallel_dynamic((rows + kBlockRows - 1) / kBlockRows, [&](size_t item) {
    std::vector<float> constant(book.padded);
    for (size_t j = 0; j < groups; ++j) {
      float square[64] = {}, slope[8];
      for (size_t i = 0; i < group; ++i) square[i * group + i] = importance[j * group + i];
      ops.squares(book.values.data(), group, book.padded, square, constant.data());
      std::fill(constant.begin() + static_cast<long>(book.n), constant.end(), std::numeric_limits<float>::infinity());
      for (size_t r = item * kBlockRows; r < std::min(rows, (item + 1) * kBlockRows); ++r) {
        const float* point = points.data() + r * columns + j * group;
        float own = 0, least = 0;
        for (size_t i = 0; i < group; ++i) {
          slope[i] = -2 * importance[j * group + i] * point[i];
          own += importance[j * group + i] * point[i] * point[i];
        }
        const size_t best = ops.least(book.values.data(), group, book.padded, constant.data(), slope, &least);
        codes[(r * groups + j) * stride] = static_cast<uint16_t>(best);
        if (distances != nullptr) distances[r * groups + j] = std::max(0.0f, own + least);
      }
    }
  });
}

/// Some rows of a matrix, in random order; all of them when there are no more.
std::vector<float> sample_rows(std::span<const float> points, size_t columns, size_t n, PhiloxStream& random) {
  const size_t rows = points.size() / columns;
  if (n >= rows) return {points.begin(), points.end()};
  std::vector<size_t> order(rows);
  std::iota(order.begin(), order.end(), size_t{0});
  std::vector<float> out;
  out.reserve(n * columns);
  for (size_t i = 0; i < n; ++i) {
    std::swap(order[i], order[i + random.next_below(rows - i)]);
    const float* row = points.data() + order[i] * columns;
    out.insert(out.end(), row, row + columns);
  }
  return out;
}

std::vector<float> first_centres(std::span<const float> points, size_t group, size_t n, PhiloxStream& random) {
  std::vector<float> out(n * group);
  const size_t n_points = points.size() / group;
  if (group == 1) {
    std::vector<float> sorted(points.begin(), points.end());
    std::sort(sorted.begin(), sorted.end());
    for (size_t k = 0; k < n; ++k) out[k] = sorted[(2 * k + 1) * n_points / (2 * n)];
    return out;
  }
  for (size_t k = 0; k < n; ++k)
    std::copy_n(points.data() + random.next_below(n_points) * group, group, &out[k * group]);
  return out;
}

/// Moves each centre to the weighted mean of its points.
void move_centres(std::span<const float> points, size_t columns, size_t group, std::span<const float> importance,
                  std::span<const uint16_t> codes, std::span<const float> distances, std::vector<float>& centres) {
  std::vector<double> sums(centres.size()), weights(centres.size());
  for (size_t p = 0; p < codes.size(); ++p) {
    const size_t column = p * group % columns, to = codes[p] * group;
    for (size_t i = 0; i < group; ++i) {
      const double h = static_cast<double>(importance[column + i]);
      sums[to + i] += h * static_cast<double>(points[p * group + i]);
      weights[to + i] += h;
    }
  }
  std::vector<size_t> empty;
  for (size_t k = 0; k < centres.size() / group; ++k) {
    if (!(weights[k * group] > 0)) {
      empty.push_back(k);
      continue;
    }
    for (size_t i = 0; i < group; ++i) {
      centres[k * group + i] = static_cast<float>(sums[k * group + i] / weights[k * group + i]);
    }
  }
  if (empty.empty()) return;
  std::vector<uint32_t> farthest(codes.size());
  std::iota(farthest.begin(), farthest.end(), 0u);
  const size_t n = std::min(empty.size(), farthest.size());
  std::partial_sort(
      farthest.begin(), farthest.begin() + static_cast<long>(n), farthest.end(),
      [&](uint32_t a, uint32_t b) { return distances[a] != distances[b] ? distances[a] > distances[b] : a < b; });
  for (size_t i = 0; i < n; ++i) std::copy_n(&points[farthest[i] * group], group, &centres[empty[i] * group]);
}

}  // namespace

TransposedBook::TransposedBook(std::span<const float> centres, size_t group)
    : n(centres.size() / group),
      padded((n + kernels::kCodebookLanes - 1) / kernels::kCodebookLanes * kernels::kCodebookLanes),
      values(group * padded) {
  for (size_t k = 0; k < n; ++k) {
    for (size_t i = 0; i < group; ++i) values[i * padded + k] = centres[k * group + i];
  }
}

std::vector<float> kmeans_codebook(std::span<const float> points, size_t columns, size_t group, uint32_t bits,
                                   std::span<const float> importance, int iterations, uint64_t seed) {
  PhiloxStream random(seed);
  const size_t n = size_t{1} << bits, groups = columns / group;
  const size_t wanted = std::max(kLeastPoints, kPointsACentre * n);
  const std::vector<float> sample = sample_rows(points, columns, (wanted + groups - 1) / groups, random);
  std::vector<float> centres = first_centres(sample, group, n, random);
  std::vector<uint16_t> codes(sample.size() / group);
  std::vector<float> distances(codes.size());
  double before = std::numeric_limits<double>::infinity();
  for (int i = 0; i < iterations; ++i) {
    assign(sample, columns, group, importance, {centres, group}, codes.data(), 1, distances.data());
    double error = 0;
    for (float d : distances) error += static_cast<double>(d);
    if (!(error < 0.999 * before)) break;
    before = error;
    move_centres(sample, columns, group, importance, codes, distances, centres);
  }
  return centres;
}

void nearest_codes(std::span<const float> points, size_t columns, size_t group, std::span<const float> importance,
                   std::span<const float> centres, uint16_t* codes, size_t stride) {
  assign(points, columns, group, importance, {centres, group}, codes, stride, nullptr);
}

}  // namespace mneme
