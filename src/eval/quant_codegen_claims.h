#pragma once

#include <vector>

#include "eval/claims.h"

namespace mneme {

/// Claims about vector quantisation of weights (AQLM) and the statistics of the study on models of code (arXiv
/// 2503.07103), measured on matrices of normal values.
std::vector<Claim> quant_codegen_claims();

}  // namespace mneme
