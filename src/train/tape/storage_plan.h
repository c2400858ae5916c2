#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

/// Dynamic storage allocation: requests with known sizes and lives get fixed offsets in one arena, as low as possible.
/// The heuristic half of MEMO's memory planning (arXiv 2407.12117, section 4.2): placement in several orders, among
/// them those of a best-fit skyline (arXiv 1804.10001), then a seeded local search on the best order; no integer
/// program.
namespace mneme::train {

/// A buffer that is needed from step `begin` up to and including step `end`.
struct StorageRequest {
  size_t bytes;
  uint32_t begin, end;
};

struct StoragePlan {
  std::vector<size_t> offsets;  ///< One a request, multiples of the alignment.
  size_t peak = 0;              ///< Size of the arena.
  size_t lower_bound = 0;       ///< Most bytes alive at any step; no plan can be smaller.
};

/// Places the requests. Sizes are rounded up to `alignment` (a power of two) first. Cost O(n^2) per order tried; the local
/// search tries `search_moves` changed orders unless the lower bound is met before. Deterministic.
StoragePlan plan_storage(const std::vector<StorageRequest>& requests, size_t search_moves = 300, size_t alignment = 64);

}  // namespace mneme::train
