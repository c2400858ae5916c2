#include "recall/history.h"

#include <map>

#include "base/error.h"
#include "recall/time_text.h"

namespace mneme::recall {
namespace {

/// Newest payload at or before `time` of each record of a scope, by record number; "" for erased ones.
std::map<int64_t, std::string> payloads_as_of(Store& store, int64_t scope, Time time) {
  std::map<int64_t, std::string> payloads;
  store.database().query("SELECT record, payload FROM event WHERE scope = ? AND time <= ? ORDER BY seq", {scope, time},
                         [&](const SqlRow& row) { payloads[row.integer(0)] = row.text(1); });
  return payloads;
}

/// The same state and content; version and time of recording apart.
bool same_content(Record a, const Record& b) {
  a.version = b.version;
  a.recorded_at = b.recorded_at;
  return to_json(a) == to_json(b);
}

}  // namespace

Json to_json(const Event& event) {
  Json json = {{"sequence", event.sequence},
               {"time", format_time(event.time)},
               {"id", event.record},
               {"version", event.version},
               {"operation", event.operation},
               {"actor", event.actor}};
  if (!event.reason.empty()) json["reason"] = event.reason;
  json["record"] = event.after ? to_json(*event.after) : Json(nullptr);
  return json;
}

std::vector<Event> history(Store& store, const Scope& scope, const std::string& id) {
  std::vector<Event> events;
  store.read(scope, [&] {
    events.clear();
    const int64_t number = store.record_number(store.scope_number(scope), id);
    std::string full;
    store.database().query("SELECT id FROM record WHERE num = ?", {number},
                           [&](const SqlRow& row) { full = row.text(0); });
    store.database().query(
        "SELECT seq, time, version, operation, actor, reason, payload FROM event WHERE record = ? ORDER BY version",
        {number}, [&](const SqlRow& row) {
          Event event;
          event.sequence = static_cast<uint64_t>(row.integer(0));
          event.time = row.integer(1);
          event.record = full;
          event.version = static_cast<uint32_t>(row.integer(2));
          event.operation = row.text(3);
          event.actor = row.text(4);
          event.reason = row.text(5);
          if (!row.is_null(6)) event.after = record_from_json(parse_json(row.text(6), "event"), "event of " + full);
          events.push_back(std::move(event));
        });
  });
  return events;
}

std::vector<Record> records_as_of(Store& store, const Scope& scope, Time time) {
  std::vector<Record> records;
  store.read(scope, [&] {
    records.clear();
    for (const auto& [number, payload] : payloads_as_of(store, store.scope_number(scope), time)) {
      if (!payload.empty()) records.push_back(record_from_json(parse_json(payload, "event"), "event"));
    }
  });
  return records;
}

Rollback rollback(Store& store, const Scope& scope, Time time, const std::string& id, std::string_view reason) {
  Rollback done;
  store.write(scope, [&](Time now) {
    done = {};
    const int64_t owner = store.scope_number(scope);
    const int64_t only = id.empty() ? 0 : store.record_number(owner, id);
    const std::map<int64_t, std::string> past = payloads_as_of(store, owner, time);
    std::vector<int64_t> changed;
    store.database().query("SELECT DISTINCT record FROM event WHERE scope = ? AND time > ? ORDER BY record",
                           {owner, time}, [&](const SqlRow& row) { changed.push_back(row.integer(0)); });
    for (const int64_t number : changed) {
      if (only != 0 && number != only) continue;
      const int64_t state = store.database().integer("SELECT state FROM record WHERE num = ?", {number});
      if (state == static_cast<int64_t>(State::kErased)) {
        ++done.erased;
        continue;
      }
      const Record current = store.load(number);
      Record after = current;
      const auto then = past.find(number);
      if (then != past.end()) {
        after = record_from_json(parse_json(then->second, "event"), "event of " + current.id);
      } else {
        after.state = State::kArchived;
      }
      if (same_content(after, current)) continue;
      (then != past.end() ? done.restored : done.archived) += 1;
      after.version = current.version + 1;
      after.recorded_at = now;
      store.replace(owner, number, current, after, "rollback", reason);
    }
  });
  return done;
}

}  // namespace mneme::recall
