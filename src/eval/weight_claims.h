#pragma once

#include <vector>

#include "eval/claims.h"

namespace mneme {

/// Claims about formats of weights: DFloat11, BitMoD, bipolar integers, and what any quantiser promises.
std::vector<Claim> weight_claims();

}  // namespace mneme
