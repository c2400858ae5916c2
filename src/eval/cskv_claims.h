#pragma once

#include "eval/claims.h"

namespace mneme {

/// Claims about CSKV (arXiv 2409.10593), measured on models/pocket.gguf below the current folder and text that it makes up.
std::vector<Claim> cskv_claims();

}  // namespace mneme
