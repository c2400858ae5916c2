#pragma once

#include <span>
#include <vector>

#include "recall/index/hnsw_graph.h"

namespace mneme::ann {

struct ClosureOptions {
  size_t candidates = 64;   ///< Nearest heads that are looked at.
  size_t copies = 8;        ///< Most lists a vector goes to.
  float rng_factor = 1.0f;  ///< Larger accepts more heads in the same direction.
  float reach = 4.0f;       ///< Heads beyond this times the nearest head's squared distance are not taken.
};

/// The lists that a vector x goes to: closure assignment with the rule of relative neighbourhood graphs (SPANN,
/// arXiv 2111.08566, section 3.2.2). Heads are walked in order of their distance; head h is taken when
///
///   d2(x, h) <= reach * d2(x, nearest head)   and   rng_factor * d2(h, s) >= d2(x, h)  for every head s taken before,
///
/// so that copies lie in lists that a query would not read together anyway. At most `copies` are taken, at least one
/// when the graph has a head. Nearest first.
void closure_heads(const HnswGraph& heads, std::span<const float> x, const ClosureOptions& options,
                   std::vector<GraphHit>& taken);

}  // namespace mneme::ann
