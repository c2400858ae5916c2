#pragma once

#include <string>

#include "base/json.h"
#include "engine/engine.h"
#include "engine/generation.h"

namespace mneme::cli {

Json generation_json(const GenerationResult& result, const Engine& engine);
/// "12 prompt tokens (0 reused) in 0.1 s, 100 tokens at 35.2 tokens/s, ended by length"
std::string generation_summary(const GenerationResult& result);

}  // namespace mneme::cli
