#pragma once

#include <span>
#include <vector>

#include "recall/index/head_table.h"

namespace mneme::ann {

struct ClosureOptions {
  size_t candidates = 64;   ///< Nearest heads that are looked at.
  size_t copies = 8;        ///< Most lists a vector goes to.
  /// Larger accepts more heads in the same direction. The official code has 1, for heads that are vectors; means of clusters
  /// lie nearer to each other than vectors do.
  float rng_factor = 2.0f;
  float reach = 4.0f;       ///< Heads beyond this times the nearest head's squared distance are not taken.
};

/// The lists that a vector x goes to: closure assignment with the rule of relative neighbourhood graphs (SPANN,
/// arXiv 2111.08566, section 3.2.2). Heads are walked in order of their distance; head h is taken when
///
///   d2(x, h) <= reach * d2(x, nearest head)   and   rng_factor * d2(h, s) >= d2(x, h)  for every head s taken before,
///
/// so that copies lie in lists that a query would not read together anyway. At most `copies` are taken, at least one
/// when there is a head. Nearest first.
void closure_heads(const HeadTable& heads, std::span<const float> x, const ClosureOptions& options,
                   std::vector<HeadHit>& taken);

}  // namespace mneme::ann
