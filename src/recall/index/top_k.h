#pragma once

#include <algorithm>
#include <vector>

#include "recall/index/vector_index.h"

namespace mneme::ann {

/// Order of hits: by distance, equal ones by id, so that results do not depend on the order of visits.
inline bool nearer(const Hit& a, const Hit& b) {
  return a.distance < b.distance || (a.distance == b.distance && a.id < b.id);
}

/// The k nearest of the hits that were offered.
class TopK {
 public:
  explicit TopK(size_t k) : k_(k) {}

  /// Whether a hit at this distance may still enter.
  bool may_enter(float distance) const { return heap_.size() < k_ || distance <= heap_.front().distance; }

  void offer(Hit hit) {
    if (heap_.size() < k_) {
      heap_.push_back(hit);
      std::push_heap(heap_.begin(), heap_.end(), nearer);
    } else if (nearer(hit, heap_.front())) {
      std::pop_heap(heap_.begin(), heap_.end(), nearer);
      heap_.back() = hit;
      std::push_heap(heap_.begin(), heap_.end(), nearer);
    }
  }

  /// The hits, nearest first.
  std::vector<Hit> take() {
    std::sort_heap(heap_.begin(), heap_.end(), nearer);
    return std::move(heap_);
  }

 private:
  size_t k_;
  std::vector<Hit> heap_;  ///< The farthest in front.
};

}  // namespace mneme::ann
