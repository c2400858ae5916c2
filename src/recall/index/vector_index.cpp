#include "recall/index/vector_index.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/checked_math.h"
#include "base/error.h"
#include "recall/index/unit_length.h"

namespace mneme::ann {
namespace {

constexpr std::array<std::string_view, 3> kMetricNames = {"l2", "ip", "cosine"};

}  // namespace

std::string_view metric_name(Metric metric) {
  return kMetricNames[static_cast<size_t>(metric)];
}

Metric parse_metric(std::string_view name) {
  const auto found = std::find(kMetricNames.begin(), kMetricNames.end(), name);
  if (found == kMetricNames.end())
    fail(ErrorCode::kInvalidArgument, "[metric] expected l2, ip or cosine, found '{}'", name);
  return static_cast<Metric>(found - kMetricNames.begin());
}

SearchCost& SearchCost::operator+=(const SearchCost& other) {
  vectors_compared += other.vectors_compared;
  heads_visited += other.heads_visited;
  lists_read += other.lists_read;
  bytes_read += other.bytes_read;
  return *this;
}

VectorIndex::VectorIndex(size_t dimension, Metric metric) : dimension_(dimension), metric_(metric) {
  if (dimension == 0 || dimension > kMaxDimension) {
    fail(ErrorCode::kInvalidArgument, "[vector index] expected a dimension of 1 to {}, found {}", kMaxDimension,
         dimension);
  }
}

void VectorIndex::check_row(std::span<const float> row, std::string_view operation, uint64_t id) const {
  double squares = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    if (!std::isfinite(row[i])) {
      fail(ErrorCode::kInvalidArgument, "[{}] expected finite numbers, found {} at position {} of vector {}", operation,
           row[i], i, id);
    }
    squares += static_cast<double>(row[i]) * row[i];
  }
  if (squares == 0 && metric_ == Metric::kCosine) {
    fail(ErrorCode::kInvalidArgument, "[{}] expected a direction, found only zeros in vector {}", operation, id);
  }
  if (squares > 1e30) {  // so that no distance overflows f32
    fail(ErrorCode::kInvalidArgument, "[{}] expected a length below 1e15, found {:.3g} of vector {}", operation,
         std::sqrt(squares), id);
  }
}

void VectorIndex::add(std::span<const uint64_t> ids, std::span<const float> rows) {
  const auto wanted = checked_mul(ids.size(), dimension_);
  if (!wanted || rows.size() != *wanted) {
    fail(ErrorCode::kInvalidArgument, "[add] expected {} x {} values, found {}", ids.size(), dimension_, rows.size());
  }
  if (ids.empty()) return;
  std::vector<uint64_t> sorted(ids.begin(), ids.end());
  std::sort(sorted.begin(), sorted.end());
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  if (twice != sorted.end()) fail(ErrorCode::kInvalidArgument, "[add] expected each id once, found {} twice", *twice);
  for (size_t i = 0; i < ids.size(); ++i) check_row(rows.subspan(i * dimension_, dimension_), "add", ids[i]);
  do_add(ids, rows);
}

size_t VectorIndex::remove(std::span<const uint64_t> ids) {
  return ids.empty() ? 0 : do_remove(ids);
}

SearchResult VectorIndex::search(std::span<const float> query, const SearchParameters& parameters) const {
  if (query.size() != dimension_) {
    fail(ErrorCode::kInvalidArgument, "[search] expected a vector of {} values, found {}", dimension_, query.size());
  }
  check_row(query, "search", 0);
  if (parameters.k == 0 || !(parameters.prune >= 1)) {
    fail(ErrorCode::kInvalidArgument, "[search] expected k >= 1 and prune >= 1, found {} and {}", parameters.k,
         parameters.prune);
  }
  return do_search(query, parameters);
}

bool VectorIndex::holds(uint64_t id, std::span<const float> row) const {
  if (row.size() != dimension_) {
    fail(ErrorCode::kInvalidArgument, "[compare] expected a vector of {} values, found {}", dimension_, row.size());
  }
  check_row(row, "compare", id);
  return contains(id) && do_holds(id, row);
}

bool VectorIndex::do_holds(uint64_t id, std::span<const float> row) const {
  constexpr size_t kNearest = 32, kLists = 64;
  if (metric_ == Metric::kInnerProduct) fail(ErrorCode::kUnsupported, "[compare] expected a distance, found metric ip");
  const auto hits = do_search(row, {.k = kNearest, .ef = 4 * kNearest, .lists = kLists, .prune = 4}).hits;
  const auto found = std::find_if(hits.begin(), hits.end(), [&](const Hit& hit) { return hit.id == id; });
  // Of many equal vectors the search may have found others; then the last is as near as the first.
  return found != hits.end() || (hits.size() == kNearest && hits.back().distance <= hits.front().distance);
}

bool VectorIndex::keeps_as(std::span<const float> row, std::span<const float> kept) const {
  if (metric_ != Metric::kCosine) return std::equal(row.begin(), row.end(), kept.begin(), kept.end());
  std::vector<float> unit(row.size());
  to_unit_length(row, unit);
  return std::equal(unit.begin(), unit.end(), kept.begin(), kept.end());
}

}  // namespace mneme::ann
