#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"

namespace mneme::cli {

/// What `--calibrate` takes in place of a file: a text that the model makes up itself, so that no data of a user is
/// read (zero-shot, arXiv 2103.13630, section IV.D).
inline constexpr std::string_view kOwnText = "self";

/// Up to `most` tokens of the file `source`, or as many that the model makes up: pieces of at most `window` tokens
/// behind random tokens of its vocabulary, the same ones in each run. Throws Error(kIo), as own_text() does, and
/// Error(kInvalidArgument) for a file without text.
std::vector<TokenId> calibration_tokens(Engine& engine, const std::string& source, uint64_t most, uint32_t window,
                                        uint64_t seed);

/// "4096 tokens that the model made up; no user data was used", or "4096 tokens of FILE".
std::string describe_calibration(const std::string& source, uint64_t n_tokens);

}  // namespace mneme::cli
