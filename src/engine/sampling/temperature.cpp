#include "engine/sampling/temperature.h"

#include <algorithm>
#include <cmath>

namespace mneme {

void apply_temperature(Candidates& candidates, float temperature) {
  if (temperature <= 0 || !std::isfinite(candidates.max_logit() / temperature)) return candidates.keep_top(1);
  if (temperature == 1) return;
  if (candidates.is_dense()) {
    for (float& logit : candidates.mutable_logits()) logit /= temperature;
  } else {
    for (Candidate& c : candidates.items()) c.logit /= temperature;
  }
}

void apply_dynamic_temperature(Candidates& candidates, float temperature, float range, float exponent) {
  const std::span<const Candidate> items = candidates.normalize();
  if (items.size() < 2) return;
  double entropy = 0;
  for (const Candidate& c : items) entropy -= c.p > 0 ? c.p * std::log(c.p) : 0.0f;
  const double share = std::clamp(entropy / std::log(static_cast<double>(items.size())), 0.0, 1.0);
  const float low = std::max(0.0f, temperature - range), high = temperature + range;
  apply_temperature(candidates, low + (high - low) * static_cast<float>(std::pow(share, exponent)));
}

}  // namespace mneme
