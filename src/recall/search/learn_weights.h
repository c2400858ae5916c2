#pragma once

#include <span>
#include <vector>

#include "recall/search/ranking.h"

namespace mneme::recall {

/// A question whose answers are known: what a search found, and which of it was wanted.
struct RankingExample {
  std::vector<Candidate> candidates;
  std::vector<bool> wanted;  ///< One for each candidate.
};

/// Mean over the examples of 1 / rank of the first wanted candidate; 0 where none was found. Equal scores count against it.
double mean_reciprocal_rank(std::span<const RankingExample> examples, const FusionWeights& weights);

/// Weights with a greater mean reciprocal rank, by coordinate ascent (Metzler and Croft, Information Retrieval 2007): each
/// weight in turn is tried at several multiples, the best is kept, until a round changes nothing or 20 rounds are over. Ties
/// keep the present value, so weights that do not matter stay. Does not guard against too few examples.
FusionWeights learn_weights(std::span<const RankingExample> examples, const FusionWeights& start);

}  // namespace mneme::recall
