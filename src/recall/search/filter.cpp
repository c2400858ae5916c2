#include "recall/search/filter.h"

#include <algorithm>

namespace mneme::recall {
namespace {

/// A pattern for LIKE ... ESCAPE '!' that finds `text` itself.
std::string literal(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '%' || c == '_' || c == '!') out += '!';
    out += c;
  }
  return out;
}

template <typename T>
std::string number_list(const std::vector<T>& values) {
  std::string list;
  for (const T value : values) list += (list.empty() ? "" : ", ") + std::to_string(static_cast<int>(value));
  return list;
}

template <typename T>
bool contains(const std::vector<T>& values, const T& value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

}  // namespace

SqlCondition sql_condition(const Filter& f, Time now) {
  SqlCondition c;
  c.where = "r.state IN (" + (f.states.empty() ? "0" : number_list(f.states)) + ")";
  const auto add = [&](const std::string& condition, SqlValue value) {
    c.where += " AND " + condition;
    c.parameters.push_back(std::move(value));
  };
  if (!f.with_expired) add("(r.expires_at IS NULL OR r.expires_at > ?)", now);
  if (!f.kinds.empty()) c.where += " AND r.kind IN (" + number_list(f.kinds) + ")";
  if (!f.agent.empty()) add("r.agent = ?", f.agent);
  if (!f.session.empty()) add("r.session = ?", f.session);
  if (!f.speaker.empty()) add("r.speaker = ?", f.speaker);
  for (const std::string& tag : f.tags) add("r.tags LIKE ? ESCAPE '!'", "%\n" + literal(tag) + "\n%");
  if (!f.source_uri.empty()) add("r.source LIKE ? ESCAPE '!'", literal(f.source_uri) + "%");
  if (f.event_from) add("r.event_time >= ?", *f.event_from);
  if (f.event_before) add("r.event_time < ?", *f.event_before);
  if (f.recorded_from) add("r.recorded_at >= ?", *f.recorded_from);
  if (f.recorded_before) add("r.recorded_at < ?", *f.recorded_before);
  if (f.valid_at) {
    add("r.event_time <= ?", *f.valid_at);
    add("(r.valid_until IS NULL OR r.valid_until > ?)", *f.valid_at);
  }
  if (f.min_confidence > 0) add("r.confidence >= ?", f.min_confidence);
  if (f.min_importance > 0) add("r.importance >= ?", f.min_importance);
  return c;
}

bool matches(const Filter& f, const Record& r, Time now) {
  if (f.states.empty() ? r.state != State::kActive : !contains(f.states, r.state)) return false;
  if (!f.with_expired && r.expires_at && *r.expires_at <= now) return false;
  if (!f.kinds.empty() && !contains(f.kinds, r.kind)) return false;
  if (!f.agent.empty() && r.scope.agent != f.agent) return false;
  if (!f.session.empty() && r.scope.session != f.session) return false;
  if (!f.speaker.empty() && r.speaker != f.speaker) return false;
  for (const std::string& tag : f.tags) {
    if (!contains(r.tags, tag)) return false;
  }
  if (!f.source_type.empty() && r.source.type != f.source_type) return false;
  if (!r.source.uri.starts_with(f.source_uri)) return false;
  if (f.event_from && r.event_time < *f.event_from) return false;
  if (f.event_before && r.event_time >= *f.event_before) return false;
  if (f.recorded_from && r.recorded_at < *f.recorded_from) return false;
  if (f.recorded_before && r.recorded_at >= *f.recorded_before) return false;
  if (f.valid_at && (r.event_time > *f.valid_at || (r.valid_until && *r.valid_until <= *f.valid_at))) return false;
  if (r.confidence < f.min_confidence || r.importance < f.min_importance) return false;
  for (const auto& [key, value] : f.metadata) {
    if (!r.metadata.is_object() || !r.metadata.contains(key)) return false;
    const Json& found = r.metadata[key];
    if ((found.is_string() ? found.get<std::string>() : found.dump()) != value) return false;
  }
  return true;
}

}  // namespace mneme::recall
