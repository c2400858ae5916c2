#pragma once

#include <vector>

#include "eval/claims.h"

namespace mneme {

/// Claims about attention beside the data (InstInfer).
std::vector<Claim> near_data_claims();

}  // namespace mneme
