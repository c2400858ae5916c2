#include "eval/sample_statistics.h"

#include <algorithm>
#include <cassert>
#include <vector>

namespace mneme {

SampleStatistics summarise(std::span<const double> values) {
  assert(!values.empty());
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const size_t n = sorted.size();
  const double median = n % 2 == 1 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
  return {median, sorted.front(), sorted.back()};
}

Json to_json(const SampleStatistics& s) { return {{"median", s.median}, {"min", s.min}, {"max", s.max}}; }

}  // namespace mneme
