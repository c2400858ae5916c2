#pragma once

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include "recall/index/vector_index.h"
#include "recall/index/vector_mixture.h"

/// Data and oracles for tests of indexes.
namespace mneme::ann {

/// A folder of its own that is removed in the end.
class TestFolder {
 public:
  TestFolder() {
    static int count = 0;
    path_ = (std::filesystem::temp_directory_path() /
             ("mneme_index_" + std::to_string(::getpid()) + "_" + std::to_string(count++)))
                .string();
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  ~TestFolder() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

/// Rows of the uneven mixture.
inline std::vector<float> mixture_rows(size_t n, size_t dimension, uint64_t first = 0) {
  MixtureOptions options;
  options.dimension = dimension;
  options.modes = 40;
  std::vector<float> rows(n * dimension);
  VectorMixture(options).rows(first, rows);
  return rows;
}

inline std::vector<uint64_t> ids_from(uint64_t first, size_t n) {
  std::vector<uint64_t> ids(n);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

/// Mean part of the hits of `exact` that `index` finds, over the queries [n, dimension].
inline double recall_against(const VectorIndex& exact, const VectorIndex& index, std::span<const float> queries,
                             const SearchParameters& parameters, SearchCost* cost = nullptr) {
  size_t found = 0, wanted = 0;
  for (size_t at = 0; at < queries.size(); at += exact.dimension()) {
    const auto query = queries.subspan(at, exact.dimension());
    const auto right = exact.search(query, parameters).hits;
    const SearchResult got = index.search(query, parameters);
    if (cost != nullptr) *cost += got.cost;
    wanted += right.size();
    for (const Hit& hit : got.hits) {
      found += std::any_of(right.begin(), right.end(), [&](const Hit& r) { return r.id == hit.id; }) ? 1 : 0;
    }
  }
  return static_cast<double>(found) / static_cast<double>(wanted);
}

}  // namespace mneme::ann
