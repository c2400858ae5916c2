#pragma once

#include <optional>
#include <string>
#include <vector>

#include "recall/store.h"

namespace mneme::recall {

/// One change in the log.
struct Event {
  uint64_t sequence = 0;  ///< Grows with each event of the store.
  Time time = 0;
  std::string record;     ///< Id.
  uint32_t version = 0;
  std::string operation;  ///< "add", "update", "archive", "restore", "merge", "import", "rollback", "erase".
  std::string actor, reason;
  std::optional<Record> after;  ///< The version that it made; nothing once the record was erased.
};

Json to_json(const Event& event);

/// All changes of a record, oldest first; erased records have theirs too, without content. Throws Error(kNotFound).
std::vector<Event> history(Store& store, const Scope& scope, const std::string& id);

/// A user's records as they were at `time`, without those erased since, oldest first.
std::vector<Record> records_as_of(Store& store, const Scope& scope, Time time);

/// What rollback() did.
struct Rollback {
  size_t restored = 0;  ///< Records that got an older version back.
  size_t archived = 0;  ///< Records made since, now archived.
  size_t erased = 0;    ///< Records that cannot come back.
};

/// Brings a user's memory, or one record of it, back to its state at `time`, by new versions: the log keeps what was done
/// since, and a rollback can be rolled back. One transaction.
Rollback rollback(Store& store, const Scope& scope, Time time, const std::string& id = {}, std::string_view reason = "");

}  // namespace mneme::recall
