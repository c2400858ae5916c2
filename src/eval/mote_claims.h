#pragma once

#include <vector>

#include "eval/claims.h"

namespace mneme {

/// Claims of mixtures of ternary experts (MoTE, arXiv 2506.14435).
std::vector<Claim> mote_claims();

}  // namespace mneme
