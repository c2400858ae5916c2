#pragma once

#include <string>
#include <vector>

#include "cli/commands.h"
#include "weights/quantize.h"

namespace mneme::cli {

/// `mneme quantize IN --compare ...`.
struct CompareCommand {
  std::string in;
  std::vector<std::string> formats;  ///< Names of recipes, or sizes such as "600M".
  std::string text;                  ///< Text to measure on.
  std::string html, folder;          ///< Report and folder of the files made on the way; may be empty.
  uint32_t window = 512;
  uint64_t max_windows = 8;
  QuantizeOptions how;  ///< But for recipe and size.
};

/// Writes the model in each format, measures it against the original and prints a table (or JSON).
void compare_formats(const CompareCommand& command, const GlobalOptions& global);

}  // namespace mneme::cli
