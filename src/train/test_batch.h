#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/philox.h"
#include "train/tape/batch.h"

namespace mneme::train {

/// For tests and examples: packed sequences with random ids, targets and weights, a quarter of the positions unlabelled.
struct RandomBatch {
  RandomBatch(size_t vocabulary, std::vector<uint32_t> boundaries, uint64_t seed) : starts(std::move(boundaries)) {
    PhiloxStream random(seed);
    for (uint32_t t = 0; t < starts.back(); ++t) {
      tokens.push_back(static_cast<int32_t>(random.next_below(vocabulary)));
      targets.push_back(static_cast<int32_t>(random.next_below(vocabulary)));
      weights.push_back(random.next_below(4) == 0 ? 0.0f : 0.5f + random.next_float());
    }
  }
  Batch view() const { return {tokens, targets, weights, starts, 1.0 / static_cast<double>(tokens.size())}; }

  std::vector<int32_t> tokens, targets;
  std::vector<float> weights;
  std::vector<uint32_t> starts;
};

}  // namespace mneme::train
