#pragma once

#include <string>
#include <string_view>

#include "recall/record.h"

namespace mneme::recall {

/// 0001-01-01 and the end of 9999-12-31, the years that four digits can say.
constexpr Time kEarliestTime = -62135596800'000000;
constexpr Time kLatestTime = 253402300799'999999;
constexpr Time kMicrosPerSecond = 1'000'000;
constexpr Time kMicrosPerDay = 86'400 * kMicrosPerSecond;

/// The clock of the machine.
Time now();

/// "2026-11-29T08:12:41Z", with six more digits when there are microseconds.
std::string format_time(Time time);

/// "2026-11-29", "2026-11-29T08:12", with seconds, a fraction and a zone ("Z", "+02:00"), a blank for the T; a date
/// alone is its first moment, and no zone means UTC. Also "@SECONDS" since 1970 and LoCoMo's "1:56 pm on 8 May, 2023".
/// Throws Error(kInvalidArgument) that names the text.
Time parse_time(std::string_view text);

/// "30s", "15m", "12h", "7d", "2w": microseconds. Throws Error(kInvalidArgument).
Time parse_duration(std::string_view text);

}  // namespace mneme::recall
