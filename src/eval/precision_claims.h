#pragma once

#include <vector>

#include "eval/claims.h"

namespace mneme {

/// Claims about training in low-precision floating point (precision_law.h).
std::vector<Claim> precision_claims();

}  // namespace mneme
