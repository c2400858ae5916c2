#include "recall/search/learn_weights.h"

#include <array>

namespace mneme::recall {
namespace {

constexpr int kRounds = 20;
constexpr std::array<double, 8> kMultiples = {0, 0.25, 0.5, 0.8, 1.25, 2, 4, 8};
constexpr double kFromZero = 0.1;  // what a weight of 0 is a multiple of
constexpr double kLeastGain = 1e-9;

std::vector<double*> places(FusionWeights& weights) {
  std::vector<double*> all;
  for (double& channel : weights.channel) all.push_back(&channel);
  all.insert(all.end(), {&weights.recency, &weights.importance, &weights.confidence_power});
  return all;
}

}  // namespace

double mean_reciprocal_rank(std::span<const RankingExample> examples, const FusionWeights& weights) {
  double sum = 0;
  for (const RankingExample& example : examples) {
    double best = -1;
    for (size_t i = 0; i < example.candidates.size(); ++i) {
      if (example.wanted[i]) best = std::max(best, fused_score(example.candidates[i], weights));
    }
    if (best < 0) continue;
    size_t rank = 1;
    for (size_t i = 0; i < example.candidates.size(); ++i) {
      rank += !example.wanted[i] && fused_score(example.candidates[i], weights) >= best;
    }
    sum += 1 / static_cast<double>(rank);
  }
  return examples.empty() ? 0 : sum / static_cast<double>(examples.size());
}

FusionWeights learn_weights(std::span<const RankingExample> examples, const FusionWeights& start) {
  FusionWeights weights = start;
  double best = mean_reciprocal_rank(examples, weights);
  bool changed = true;
  for (int round = 0; round < kRounds && changed; ++round) {
    changed = false;
    for (double* const place : places(weights)) {
      const double before = *place;
      double kept = before;
      for (const double multiple : kMultiples) {
        *place = (before > 0 ? before : kFromZero) * multiple;
        const double value = mean_reciprocal_rank(examples, weights);
        if (value > best + kLeastGain) {
          best = value;
          kept = *place;
          changed = true;
        }
      }
      *place = kept;
    }
  }
  return weights;
}

}  // namespace mneme::recall
