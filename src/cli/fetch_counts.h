#pragma once

#include <string>

#include "base/json.h"
#include "context/layer_state.h"

namespace mneme::cli {

/// How much of keys and values came from a slow tier: "96 % of the wanted pieces in memory, 12.3 MiB read".
std::string fetch_text(const FetchCounts& counts);
Json fetch_json(const FetchCounts& counts);

}  // namespace mneme::cli
