#pragma once

#include <string>

#include "cli/commands.h"
#include "weights/transcode.h"

namespace mneme::cli {

/// Prints what a conversion did: sizes, bits per weight and relative error; every tensor when verbose or as JSON.
void print_transcode_report(const TranscodeReport& report, const std::string& path, const GlobalOptions& global);

}  // namespace mneme::cli
