#include "engine/sampling/adaptive_p.h"

#include <algorithm>
#include <cmath>

namespace mneme {

void AdaptiveP::apply(Candidates& candidates) const {
  constexpr float kWidth = 0.3f, kPeak = 5.0f, kSharpness = 10.0f;
  const float goal = std::clamp(2 * target_ - weighted_sum_ / total_weight_, 0.0f, 1.0f);
  for (Candidate& c : candidates.normalize()) {
    const float distance = std::abs(c.p - goal) / kWidth;
    c.logit = kPeak - kSharpness * distance * distance / (1 + distance);
  }
  candidates.forget_order();
}

void AdaptiveP::accept(float p) {
  weighted_sum_ = p + decay_ * weighted_sum_;
  total_weight_ = 1 + decay_ * total_weight_;
}

}  // namespace mneme
