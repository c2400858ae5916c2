#pragma once

#include <vector>

#include "eval/claims.h"

namespace mneme {

/// What lossless weights bring where BF16 does not fit (DFloat11, arXiv 2504.11651): against a program that keeps as
/// much of BF16 as fits and reads the rest from a file in every pass.
std::vector<Claim> limited_memory_claims();

}  // namespace mneme
