#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "recall/record.h"
#include "recall/sql/database.h"

namespace mneme::recall {

/// Which records may be found; all conditions hold at once, empty ones say nothing.
struct Filter {
  std::vector<Kind> kinds;
  std::vector<State> states = {State::kActive};
  std::string agent, session, speaker;
  std::vector<std::string> tags;                                  ///< All of them.
  std::string source_type, source_uri;                            ///< The uri by its beginning.
  std::optional<Time> event_from, event_before;                   ///< [from, before)
  std::optional<Time> recorded_from, recorded_before;
  std::optional<Time> valid_at;                                   ///< event_time <= t < valid_until
  double min_confidence = 0, min_importance = 0;
  std::vector<std::pair<std::string, std::string>> metadata;      ///< Key and value; numbers by their JSON text.
  bool with_expired = false;
};

/// A condition on row `r` of table record with its parameters, for statements that begin "... WHERE x AND ".
struct SqlCondition {
  std::string where;
  std::vector<SqlValue> parameters;
};

/// All of a filter that tables know; source type and metadata are left to matches(). `now` decides what is expired.
SqlCondition sql_condition(const Filter& filter, Time now);

/// The whole filter on a record in memory.
bool matches(const Filter& filter, const Record& record, Time now);

}  // namespace mneme::recall
