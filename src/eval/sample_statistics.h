#pragma once

#include <span>

#include "base/json.h"

namespace mneme {

/// Median and spread of repeated measurements.
struct SampleStatistics {
  double median = 0, min = 0, max = 0;
};

/// Of at least one value; the median of an even count is the mean of the middle two.
SampleStatistics summarise(std::span<const double> values);

/// {"median": m, "min": a, "max": b}
Json to_json(const SampleStatistics& statistics);

}  // namespace mneme
