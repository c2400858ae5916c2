#include "recall/index/vector_space.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "recall/index/unit_length.h"

namespace mneme::ann {
namespace {

double squared_length(std::span<const float> x) {
  double sum = 0;
  for (float value : x) sum += static_cast<double>(value) * value;
  return sum;
}

}  // namespace

void VectorSpace::map_row(std::span<const float> row, std::span<float> out, uint64_t id) const {
  if (metric_ == Metric::kCosine) return to_unit_length(row, out);
  std::copy(row.begin(), row.end(), out.begin());
  if (metric_ != Metric::kInnerProduct) return;
  const double room = static_cast<double>(radius_) * radius_ - squared_length(row);
  if (room < -1e-5 * radius_ * radius_) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("[add] expected a length of at most {:.6g}, found {:.6g} of vector {}", radius_,
                            std::sqrt(squared_length(row)), id),
                "a SPANN index by inner product keeps the longest row of its first build; build it anew");
  }
  out[dimension_] = static_cast<float>(std::sqrt(std::max(room, 0.0)));
}

void VectorSpace::map_query(std::span<const float> query, std::span<float> out) const {
  if (metric_ == Metric::kCosine) return to_unit_length(query, out);
  std::copy(query.begin(), query.end(), out.begin());
  if (metric_ == Metric::kInnerProduct) out[dimension_] = 0;
}

float VectorSpace::distance(float squared, std::span<const float> query) const {
  switch (metric_) {
    case Metric::kL2:
      return squared;
    case Metric::kCosine:
      return squared / 2;
    case Metric::kInnerProduct:
      break;
  }
  return static_cast<float>((squared - squared_length(query) - static_cast<double>(radius_) * radius_) / 2);
}

float longest_row(std::span<const float> rows, size_t dimension) {
  double most = 0;
  for (size_t i = 0; i < rows.size(); i += dimension) most = std::max(most, squared_length(rows.subspan(i, dimension)));
  return static_cast<float>(std::sqrt(most) * (1 + 1e-6));
}

}  // namespace mneme::ann
