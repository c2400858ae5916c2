#include "recall/index/closure.h"

#include <algorithm>

namespace mneme::ann {

void closure_heads(const HeadTable& heads, std::span<const float> x, const ClosureOptions& options,
                   std::vector<HeadHit>& taken) {
  thread_local std::vector<HeadHit> near;
  heads.search(x, options.candidates, near);
  taken.clear();
  for (const HeadHit& head : near) {
    if (taken.size() >= options.copies || head.distance > options.reach * near.front().distance) break;
    const bool own_direction = std::all_of(taken.begin(), taken.end(), [&](const HeadHit& other) {
      return options.rng_factor * heads.distance(head.node, other.node) >= head.distance;
    });
    if (own_direction) taken.push_back(head);
  }
}

}  // namespace mneme::ann
