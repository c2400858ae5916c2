#include "recall/search/ranking.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace mneme::recall {

std::vector<double> bm25(std::span<const TermMatch> matches, std::span<const int64_t> lengths, int64_t n_records,
                         double mean_length) {
  constexpr double k1 = 1.2, b = 0.75;
  std::vector<double> scores(matches.size());
  if (matches.empty()) return scores;
  const size_t n_terms = matches.front().counts.size();
  std::vector<double> idf(n_terms);
  for (size_t t = 0; t < n_terms; ++t) {
    double n = 0;
    for (const TermMatch& match : matches) n += match.counts[t] > 0;
    idf[t] = std::log(1 + (std::max(static_cast<double>(n_records), n) - n + 0.5) / (n + 0.5));
  }
  for (size_t i = 0; i < matches.size(); ++i) {
    const double norm = k1 * (1 - b + b * static_cast<double>(lengths[i]) / std::max(mean_length, 1.0));
    for (size_t t = 0; t < n_terms; ++t) {
      const double c = matches[i].counts[t];
      scores[i] += idf[t] * c * (k1 + 1) / (c + norm);
    }
  }
  return scores;
}

double fused_score(const Candidate& c, const FusionWeights& w) {
  double score = 0;
  for (size_t i = 0; i < kChannels; ++i) score += w.channel[i] * c.share[i];
  const double half_life = std::max(w.half_life_days, 1e-6);
  score *= 1 + w.recency * std::exp2(-std::max(c.age_days, 0.0) / half_life);
  score *= std::max(0.0, 1 + w.importance * (c.importance - 0.5));
  return score * std::pow(c.confidence, w.confidence_power);
}

std::vector<size_t> diverse_order(std::span<const double> relevance, double lambda, size_t n,
                                  FunctionRef<double(size_t, size_t)> similarity) {
  std::vector<size_t> order;
  if (relevance.empty()) return order;
  const double top = std::max(*std::max_element(relevance.begin(), relevance.end()), 1e-300);
  std::vector<double> closest(relevance.size());  // greatest similarity to the chosen ones
  std::vector<bool> chosen(relevance.size());
  while (order.size() < std::min(n, relevance.size())) {
    size_t best = relevance.size();
    double best_value = 0;
    for (size_t i = 0; i < relevance.size(); ++i) {
      if (chosen[i]) continue;
      const double value = lambda * relevance[i] / top - (1 - lambda) * closest[i];
      if (best == relevance.size() || value > best_value) {
        best = i;
        best_value = value;
      }
    }
    chosen[best] = true;
    order.push_back(best);
    for (size_t i = 0; i < relevance.size(); ++i) {
      if (!chosen[i]) closest[i] = std::max(closest[i], similarity(i, best));
    }
  }
  return order;
}

}  // namespace mneme::recall
