#include "engine/sampling/mirostat.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mneme {

void apply_mirostat_v1(Candidates& candidates, float mu, size_t n_vocab) {
  constexpr size_t kEstimated = 100;
  const std::span<const Candidate> ranked = candidates.rank(kEstimated);
  double product = 0, squares = 0;
  for (size_t i = 0; i + 1 < std::min(kEstimated, ranked.size()); ++i) {
    const double t = std::log(static_cast<double>(i + 2) / static_cast<double>(i + 1));
    product += t * (ranked[i].logit - ranked[i + 1].logit);  // ln(p_i / p_{i+1})
    squares += t * t;
  }
  if (squares == 0) return;
  const double s = product / squares, e = s - 1;
  const double log_vocab = std::log(static_cast<double>(n_vocab));
  // e / (1 - V^-e), whose limit for e -> 0 is 1 / ln V.
  const double factor = std::abs(e) < 1e-9 ? 1 / log_vocab : e / (1 - std::exp(-e * log_vocab));
  const double k = std::pow(factor * std::exp2(static_cast<double>(mu)), 1 / s);
  const auto size = static_cast<double>(ranked.size());
  candidates.keep_top(k < size ? static_cast<size_t>(std::max(k, 1.0)) : ranked.size());
}

// p >= 2^-mu, as a threshold for the logits.
void apply_mirostat_v2(Candidates& candidates, float mu) {
  const float max = candidates.max_logit();
  const double threshold = max + std::log(candidates.sum_exp()) - static_cast<double>(mu) * std::numbers::ln2;
  if (threshold > max) return candidates.keep_top(1);
  candidates.keep_at_least(static_cast<float>(threshold));
}

float mirostat_next_mu(float mu, float p, float tau, float eta) { return mu - eta * (-std::log2(p) - tau); }

}  // namespace mneme
