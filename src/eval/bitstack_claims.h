#pragma once

#include <vector>

#include "eval/claims.h"

namespace mneme {

/// Claims about BitStack (arXiv 2410.23918), measured on models/pocket.gguf below the current folder and on normal
/// matrices.
std::vector<Claim> bitstack_claims();

}  // namespace mneme
