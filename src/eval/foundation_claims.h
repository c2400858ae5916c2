#pragma once

#include <vector>

#include "eval/claims.h"

namespace mneme {

/// Claims of the methods that every run uses: tiled attention.
std::vector<Claim> foundation_claims();

}  // namespace mneme
