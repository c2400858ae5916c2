#pragma once

#include "base/json.h"
#include "recall/erase.h"
#include "recall/search/search.h"

namespace mneme::recall {

/// What programs get to see of a search: `mneme recall --json` and the C interface. With `explain` also ranks and
/// scores of the channels of each hit.
Json to_json(const SearchResult& result, bool explain);
/// Ranks and scores of one hit.
Json to_json(const Candidate& why);
Json to_json(const VectorSearchCost& cost);

/// The same of an erasure.
Json to_json(const Erasure& erasure, const EraseOptions& options);

}  // namespace mneme::recall
