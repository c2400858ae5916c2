#pragma once

#include <vector>

#include "eval/claims.h"

namespace mneme {

/// What formats lose on models that were trained here: BitMoD (arXiv 2411.11745), bipolar integers (2409.17870), the
/// families of the survey (2103.13630), DFloat11 (2504.11651) and GPTQ under INT2.1 (2306.08162).
std::vector<Claim> weight_quality_claims();

}  // namespace mneme
