#pragma once

#include <vector>

#include "eval/claims.h"

namespace mneme {

/// Claims of vAttention (arXiv 2405.04437), of its mapping to a host: budget/page_pool.h, context/dense_kv.h.
std::vector<Claim> vattention_claims();

}  // namespace mneme
