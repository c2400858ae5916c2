#pragma once

#include <vector>

#include "eval/claims.h"

namespace mneme {

/// Claims of the vector index on disk (SPANN, arXiv 2111.08566), on generated vectors.
std::vector<Claim> ann_claims();

}  // namespace mneme
