#pragma once

#include <vector>

#include "eval/claims.h"

namespace mneme {

/// Claims of papers on compressed keys and values that need no trained model: bytes, and errors of attention on generated keys
/// with the outlier channels of large models. What they do to a trained model: docs/results/kv.md.
std::vector<Claim> kv_claims();

}  // namespace mneme
