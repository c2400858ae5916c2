#pragma once

#include <vector>

#include "eval/claims.h"

namespace mneme {

/// What training and gradients add to rounding, of the survey of quantisation (arXiv 2103.13630): learned step sizes
/// (1902.08153), a teacher, and bits by traces of the Hessian (1911.03852).
std::vector<Claim> trained_rounding_claims();

}  // namespace mneme
