#pragma once

#include <functional>
#include <span>
#include <string>

#include "engine/engine.h"
#include "weights/calibration.h"

namespace mneme {

struct CalibrationOptions {
  uint32_t window = 512;  ///< Tokens of one independent piece of the text.
  uint64_t max_windows = 32;
  /// Matrices whose gram matrices are wanted too (columns^2 floats each); none without it.
  std::function<bool(const std::string& name)> wants_gram;
};

/// Statistics of the inputs of all matrices while the model reads `tokens`, window by window. Throws
/// Error(kInvalidArgument) when there is no token, or when most of them stand for text that the vocabulary does not
/// know.
Calibration calibrate(Engine& engine, std::span<const TokenId> tokens, const CalibrationOptions& options,
                      const std::function<void(uint64_t windows_done, uint64_t windows)>& progress);

}  // namespace mneme
