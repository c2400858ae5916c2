#include "base/parallel.h"

#include <gtest/gtest.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include <atomic>
#include <mutex>
#include <set>
#include <vector>

namespace mneme {
namespace {

TEST(Parallel, RangesCoverEveryItemOnce) {
  for (size_t n : {0u, 1u, 2u, 7u, 1000u}) {
    std::vector<std::atomic<int>> hits(n);
    parallel_for(n, 3, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) ++hits[i];
    });
    for (auto& hit : hits) EXPECT_EQ(hit, 1);
  }
}

TEST(Parallel, DynamicCoversEveryItemOnceAndNestsSerially) {
  std::vector<std::atomic<int>> hits(500);
  parallel_dynamic(50, [&](size_t item) {
    parallel_for(10, 1, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) ++hits[item * 10 + i];
    });
  });
  for (auto& hit : hits) EXPECT_EQ(hit, 1);
}

TEST(Parallel, WorkersHaveDistinctNumbers) {
  const int before = n_threads();
  set_n_threads(3);
  std::mutex mutex;
  std::set<int> seen;
  parallel_workers([&](int worker, int n) {
    EXPECT_EQ(n, 3);
    const std::lock_guard lock(mutex);
    seen.insert(worker);
  });
  set_n_threads(before);
  EXPECT_EQ(seen, (std::set<int>{0, 1, 2}));
}

#ifdef _OPENMP
/// oneDNN asks OpenMP how many threads there are.
TEST(Parallel, LibrariesGetTheSameNumberOfWorkers) {
  const int before = n_threads();
  for (const int n : {1, 3}) {
    set_n_threads(n);
    EXPECT_EQ(omp_get_max_threads(), n);
  }
  set_n_threads(before);
}
#endif

}  // namespace
}  // namespace mneme
