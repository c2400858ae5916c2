#pragma once

#include <vector>

#include "eval/claims.h"

namespace mneme {

/// Claims of adapters over packed weights (INT2.1, arXiv 2306.08162).
std::vector<Claim> adapter_claims();

}  // namespace mneme
