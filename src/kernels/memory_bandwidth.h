#pragma once

#include <cstddef>

namespace mneme::kernels {

/// Bytes per second of repeated measurements.
struct Bandwidth {
  double median = 0, min = 0, max = 0;
};

/// Rate at which all threads together read `bytes` of memory on huge pages, `repetitions` times after a warm-up. The memory
/// is not counted in a ledger and is gone afterwards.
Bandwidth measure_read_bandwidth(size_t bytes, int repetitions);

}  // namespace mneme::kernels
