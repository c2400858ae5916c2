#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "recall/record.h"

namespace mneme::recall {

/// A stretch of time: from `from` on, before `before`.
struct TimeRange {
  Time from = 0, before = 0;
  bool operator==(const TimeRange&) const = default;
};

/// The times that an English question speaks of: "8 May 2023", "May 8th", "in May", "2023-05-08", "in 2023",
/// "yesterday", "last week", "three days ago". A month or day without a year is meant in any of the twenty years up to
/// `now`. A year is only taken where no finer date is, and "may" and "march" only with a capital. UTC.
std::vector<TimeRange> time_mentions(std::string_view text, Time now);

/// How well a time fits: 1 inside one of the ranges; after it half as much with each week that passed, since things are
/// told after they happen; else 0.
double time_fit(std::span<const TimeRange> ranges, Time time);

}  // namespace mneme::recall
