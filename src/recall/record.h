#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace mneme::recall {

/// Microseconds since 1970-01-01T00:00:00Z.
using Time = int64_t;

/// What a record is.
enum class Kind : uint8_t {
  kFact,       ///< One statement that holds for a time.
  kNote,       ///< Free text.
  kEpisode,    ///< One turn of a dialogue.
  kDocument,   ///< A piece of a document.
  kKvSegment,  ///< Points to a prepared segment of keys and values.
  kAdapter,    ///< Points to an adapter of the weights.
};

enum class State : uint8_t {
  kActive,    ///< Found by searches.
  kMerged,    ///< Replaced by another record; kept, not found.
  kArchived,  ///< Put away; kept, not found.
  kErased,    ///< Nothing is left but the id.
};

std::string_view kind_name(Kind kind);
std::string_view state_name(State state);
/// Throw Error(kInvalidArgument) that lists the names.
Kind parse_kind(std::string_view name);
State parse_state(std::string_view name);

/// Whose memory it is. Tenant and user are part of the key of everything that is stored: no operation reaches across
/// them. Agent and session narrow a search when they are not empty.
struct Scope {
  std::string tenant = "default", user = "default";
  std::string agent, session;
};

/// Where a record comes from.
struct Source {
  std::string type;  ///< "user", "conversation", "file", "mem0", ...
  std::string uri;   ///< File, URL or id of the message there.
  std::vector<std::string> parents;  ///< Ids of the records it was made from.
};

/// A directed link to another record of the same user.
struct Link {
  std::string relation;  ///< "about", "follows", "contradicts", ...
  std::string to;        ///< Id of the other record.
  bool operator==(const Link&) const = default;
};

/// Where a memory of another floor lies: a KV segment or an adapter.
struct Pointer {
  std::string uri;          ///< File, or name in a store.
  std::string fingerprint;  ///< Of the model that it fits.
  uint64_t bytes = 0;
};

/// One memory. Two times run through it: `event_time` says when it happened or began to hold (until `valid_until`),
/// `recorded_at` when this store learned it.
struct Record {
  std::string id;        ///< 16 characters of base 32; the store gives it.
  uint32_t version = 0;  ///< 1 for the first; each change adds one. The store gives it.
  Time recorded_at = 0;  ///< Of this version. The store gives it.
  State state = State::kActive;

  Kind kind = Kind::kNote;
  std::string text;
  std::string speaker;  ///< Who said it.
  Scope scope;
  Source source;
  Time event_time = 0;  ///< 0: the time of recording.
  std::optional<Time> valid_until;
  std::optional<Time> expires_at;  ///< Time to live: not found afterwards.
  double confidence = 1;           ///< [0, 1]
  double importance = 0.5;         ///< [0, 1]; raises the rank.
  std::vector<std::string> tags;   ///< Lower case.
  std::vector<Link> links;
  std::optional<Pointer> pointer;
  Json metadata;  ///< An object, or null.
  std::string merged_into;  ///< Id of the record that replaces it; state kMerged.
};

/// Longest text of one record in bytes. Longer ones are documents and are stored in pieces (chunk.h).
constexpr size_t kMaxTextBytes = size_t{1} << 20;

/// Checks and brings to its stored form what a caller gave: valid UTF-8, sizes, ranges, tags in lower case, no
/// repeated tag or link. Throws Error(kInvalidArgument) that names the field.
void normalise(Record& record);

/// All fields; defaults are left out. The form of events, cubes and `--json`.
Json to_json(const Record& record);
/// The reverse. Throws Error(kCorruptData) that names `what` and the field. Does not call normalise().
Record record_from_json(const Json& json, std::string_view what);

/// A new id: 80 random bits as 16 characters of 0-9 a-z without i, l, o, u.
std::string new_record_id();
/// True for a full id, or with `prefix` for the first four or more characters of one.
bool is_record_id(std::string_view id, bool prefix = false);

}  // namespace mneme::recall
