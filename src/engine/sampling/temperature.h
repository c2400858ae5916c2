#pragma once

#include "engine/sampling/candidates.h"

namespace mneme {

/// logit /= T. T <= 0, or so small that logits overflow, keeps only the best candidate.
void apply_temperature(Candidates& candidates, float temperature);

/// Entropy-dependent temperature: with the entropy H of p and Hmax = ln(number of candidates),
///   T = lo + (hi - lo) * (H / Hmax)^exponent,  lo = max(0, T0 - range),  hi = T0 + range.
/// Does nothing with a single candidate.
void apply_dynamic_temperature(Candidates& candidates, float temperature, float range, float exponent);

}  // namespace mneme
