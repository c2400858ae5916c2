#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/line_chart.h"
#include "recall/index/vector_index.h"

namespace mneme::ann {

/// Vectors to search among, questions, and the right answers.
struct AnnDataset {
  std::string name;
  Metric metric = Metric::kL2;
  size_t dimension = 0, k = 10;
  std::vector<float> base, queries;  ///< [n, dimension]; ids are row numbers.
  std::vector<uint64_t> truth;       ///< [queries, k], nearest first.

  size_t n_base() const { return base.size() / dimension; }
  size_t n_queries() const { return queries.size() / dimension; }
};

/// A generated set (recall/index/vector_mixture.h); questions come from the same mixture and are not in the base:
///   "skewed"     l2, 128 dimensions, about 24 of them carry a mode
///   "isotropic"  l2, 32 dimensions, all alike
///   "cosine"     cosine, 256 dimensions, about 24 of them carry a mode
/// Throws Error(kInvalidArgument) for another name.
AnnDataset make_ann_dataset(std::string_view shape, size_t n, size_t n_queries, size_t k, uint64_t seed);

/// Rows of a .fvecs file (each an i32 dimension and as many f32), at most `most`. Throws Error(kCorruptData) when rows
/// differ in length or the file ends inside one.
std::vector<float> read_fvecs(const std::string& path, size_t most, size_t* dimension);

/// Fills in `truth` by comparing all with all.
void find_ann_truth(AnnDataset& data);

/// What a search method did on all questions.
struct AnnPoint {
  std::string setting;
  double recall = 0;  ///< Part of the right k that were found.
  double queries_per_second = 0;
  double mean_ms = 0, p50_ms = 0, p95_ms = 0, p99_ms = 0;
  SearchCost cost;         ///< Sum over the questions of one pass.
  uint64_t n_queries = 0;  ///< Of one pass.
};

/// Asks every question of `data` on `threads` threads, in whole passes for at least `seconds`. `search` answers
/// question i and may run on many threads at once.
AnnPoint measure_ann(const AnnDataset& data, size_t threads, double seconds,
                     const std::function<SearchResult(size_t i)>& search);

/// Points of one method.
struct AnnCurve {
  std::string method;
  uint64_t ram_bytes = 0;       ///< As counted.
  uint64_t resident_bytes = 0;  ///< Of the process while it searched, without the base vectors.
  uint64_t disk_bytes = 0;
  double build_seconds = 0;  ///< 0 when it was opened.
  std::vector<AnnPoint> points;
};

Json to_json(const AnnCurve& curve);
/// The curve that to_json() wrote. Throws Error(kCorruptData).
AnnCurve ann_curve_from_json(const Json& json);

/// Queries a second over recall, one line a method, logarithmic.
LineChart ann_chart(std::string_view title, const std::vector<AnnCurve>& curves);

/// Queries a second at `recall`, between the measured points; 0 when no point reaches it.
double queries_per_second_at(const AnnCurve& curve, double recall);

}  // namespace mneme::ann
