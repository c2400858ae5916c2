#pragma once

#include "base/json.h"
#include "recall/search/context_score.h"
#include "recall/search/ranking.h"

namespace mneme::recall {

/// All weights of a search, as a file of weights has them.
struct SearchWeights {
  FusionWeights fusion;
  ContextWeights context;
};

/// Reads {"text": 1, "vector": 0.1, "entity": 0.1, "link": 0.1, "recency": 0.1, "half_life_days": 30, "importance": 0.5,
/// "confidence_power": 1, "context": {"series": 0.8, "before": 0.2, "question": 0.3, "after": 0.05, "second": 0.12,
/// "speaker": 0.55, "time": 0.65}}; keys may be left out. Throws Error(kInvalidArgument).
SearchWeights search_weights_from_json(const Json& json);
Json to_json(const SearchWeights& weights);

}  // namespace mneme::recall
