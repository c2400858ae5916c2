#pragma once

#include "engine/sampling/candidates.h"

namespace mneme {

/// Adaptive-p: prefers tokens whose probability is near a target, and moves the target so that the average probability of
/// the chosen tokens stays there. With the decayed average A of the chosen tokens' p (before this step),
///   goal = clamp(2 target - A, 0, 1),  d = |p - goal| / 0.3,  logit = 5 - 10 d^2 / (1 + d).
/// A starts at the target: weighted_sum = target / (1 - decay), total_weight = 1 / (1 - decay), and a chosen token gives
///   weighted_sum = p + decay * weighted_sum,  total_weight = 1 + decay * total_weight.
class AdaptiveP {
 public:
  AdaptiveP(float target, float decay)
      : target_(target), decay_(decay), weighted_sum_(target / (1 - decay)), total_weight_(1 / (1 - decay)) {}

  bool active() const { return target_ >= 0; }
  /// Replaces the logits; leaves in `p` of each item its probability before.
  void apply(Candidates& candidates) const;
  /// `p`: probability of the chosen token before apply().
  void accept(float p);

  float weighted_sum() const { return weighted_sum_; }
  float total_weight() const { return total_weight_; }
  void restore(float weighted_sum, float total_weight) {
    weighted_sum_ = weighted_sum;
    total_weight_ = total_weight;
  }

 private:
  float target_, decay_, weighted_sum_, total_weight_;
};

}  // namespace mneme
