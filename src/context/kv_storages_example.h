#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "context/block_table_kv.h"
#include "context/dense_kv.h"
#include "context/kv_example.h"

namespace mneme {

/// Runs random requests (most up to 300 tokens, one in eight up to 1000, in chunks of 1 to 200; half of them begin as a
/// fork of an earlier one, cut anywhere) at once on stores whose blocks come as they are needed, all at the start, and
/// in block tables of 16 and 64 tokens. Returns how many calls gave other bits than with everything at the start. What
/// tests and claims compare storages with.
inline size_t storage_differences(size_t n_requests, Ledger& ledger) {
  constexpr KvShape kShape{2, 16, 16, 0};
  constexpr uint64_t kMost = 1024;
  const KvExample example(kShape, 4, kMost);
  const auto arena16 = std::make_shared<BlockArena>(kShape, DType::kF16, 16, kMost, ledger);
  const auto arena64 = std::make_shared<BlockArena>(kShape, DType::kF16, 64, kMost, ledger);
  PhiloxStream random(3);
  std::unique_ptr<LayerState> kept;  // of an earlier request, for later ones to begin with
  size_t differences = 0;
  for (size_t request = 0; request < n_requests; ++request) {
    const size_t n = 1 + random.next_below(random.next_below(8) == 0 ? 1000 : 300);
    std::unique_ptr<LayerState> grown = std::make_unique<DenseKv>(kShape, DType::kF16, kMost, 512, ledger);
    size_t begun = 0;
    if (kept && random.next_below(2) == 0) {
      grown = kept->deep_copy();
      begun = random.next_below(static_cast<uint32_t>(std::min<size_t>(n, static_cast<size_t>(kept->n_tokens())) + 1));
      if (!grown->truncate(static_cast<int64_t>(begun))) ++differences;
    }
    DenseKv at_start(kShape, DType::kF16, kMost, 512, ledger);
    at_start.reserve(kMost);
    BlockTableKv in16(arena16, kMost), in64(arena64, kMost);
    for (size_t first = 0, chunk; first < n; first += chunk) {
      chunk = std::min<size_t>(n - first, first < begun ? begun - first : 1 + random.next_below(200));
      const auto want = example.feed(at_start, first, chunk);
      differences += example.feed(in16, first, chunk) != want;
      differences += example.feed(in64, first, chunk) != want;
      if (first >= begun) differences += example.feed(static_cast<KvLayer&>(*grown), first, chunk) != want;
    }
    if (random.next_below(3) == 0) kept = std::move(grown);
  }
  return differences;
}

}  // namespace mneme
