#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

namespace mneme {

/// A part of a text that is growing into a token: neighbours are linked by index.
struct MergeSymbol {
  uint32_t begin, end;  ///< Bytes of the text; end == begin once it was merged into its left neighbour.
  int32_t id;           ///< What it is now, in the numbering of the caller; -1: nothing known.
  int32_t previous, next;
  uint32_t pair_priority = 0;  ///< Of the pair with `next`, valid while that pair can merge.
  int32_t merged_id = -1;      ///< What the pair with `next` becomes; -1 when it can't merge.
};

/// Result of a pair of neighbours: lower priority values merge first.
struct Merge {
  uint32_t priority;
  int32_t id;
};

/// The loop that byte-pair encoding and SentencePiece's BPE share: merges the best pair of neighbours, the leftmost
/// among equals, until none is left. A heap holds every pair that came up, the outdated ones too; those are recognised
/// when they surface. O(n log n) for n symbols.
///
/// Invariant: a symbol's merged_id and pair_priority describe the pair that it forms now, so a heap entry is current if
/// and only if its priority equals the symbol's.
class MergeQueue {
 public:
  std::vector<MergeSymbol> symbols;

  void clear() { symbols.clear(); }
  void add(uint32_t begin, uint32_t end, int32_t id) {
    const auto index = static_cast<int32_t>(symbols.size());
    if (index > 0) symbols.back().next = index;
    symbols.push_back({begin, end, id, index - 1, -1});
  }

  /// `find_merge(left, right)` gives what a pair of symbols becomes, or nothing.
  template <typename FindMerge>
  void run(FindMerge&& find_merge) {
    heap_.clear();
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      if (pair(static_cast<int32_t>(i), find_merge)) heap_.push_back(key(static_cast<int32_t>(i)));
    }
    std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
    const auto push = [&](int32_t left) {
      if (left < 0 || !pair(left, find_merge)) return;
      heap_.push_back(key(left));
      std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
    };
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      const uint64_t top = heap_.back();
      heap_.pop_back();
      const auto index = static_cast<int32_t>(top & 0xFFFFFFFF);
      MergeSymbol& left = symbols[index];
      if (left.merged_id < 0 || left.pair_priority != top >> 32) continue;
      MergeSymbol& right = symbols[left.next];
      left.end = right.end;
      left.id = left.merged_id;
      left.next = right.next;
      if (right.next >= 0) symbols[right.next].previous = index;
      right.begin = right.end;
      right.merged_id = -1;
      push(left.previous);
      push(index);
    }
  }

 private:
  uint64_t key(int32_t index) const {
    return uint64_t{symbols[index].pair_priority} << 32 | static_cast<uint32_t>(index);
  }

  /// Looks up what symbol `index` and its right neighbour become.
  template <typename FindMerge>
  bool pair(int32_t index, FindMerge&& find_merge) {
    MergeSymbol& left = symbols[index];
    left.merged_id = -1;
    if (left.next < 0) return false;
    const std::optional<Merge> merge = find_merge(left, symbols[left.next]);
    if (!merge) return false;
    left.pair_priority = merge->priority;
    left.merged_id = merge->id;
    return true;
  }

  std::vector<uint64_t> heap_;
};

}  // namespace mneme
