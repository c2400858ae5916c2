#pragma once

#include <vector>

#include "eval/claims.h"

namespace mneme {

/// Claims of the survey of quantisation (arXiv 2103.13630) about arithmetic and calibration: integer-only passes
/// (I-BERT, 2101.01321), calibration without data, stochastic rounding, grids with and without a zero point.
std::vector<Claim> integer_claims();

}  // namespace mneme
