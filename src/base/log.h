#pragma once

#include <spdlog/spdlog.h>

namespace mneme {

/// The process's logger: warnings and above to stderr unless set_log_level() said otherwise.
spdlog::logger& log();

/// Sets the least level that is printed; called once by the command line.
void set_log_level(spdlog::level::level_enum level);

}  // namespace mneme
