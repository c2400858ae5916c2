#include "recall/record.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "base/utf8.h"
#include "recall/time_text.h"

namespace mneme::recall {
namespace {

constexpr std::array<std::string_view, 6> kKinds = {"fact", "note", "episode", "document", "kv_segment", "adapter"};
constexpr std::array<std::string_view, 4> kStates = {"active", "merged", "archived", "erased"};
constexpr std::string_view kIdDigits = "0123456789abcdefghjkmnpqrstvwxyz";
constexpr size_t kIdLength = 16;
constexpr size_t kMaxNameBytes = 256;
constexpr size_t kMaxUriBytes = 4096;
constexpr size_t kMaxTags = 64;
constexpr size_t kMaxLinks = 1024;
constexpr size_t kMaxMetadataBytes = 64 << 10;

template <size_t N>
size_t find_name(const std::array<std::string_view, N>& names, std::string_view name, std::string_view what) {
  for (size_t i = 0; i < N; ++i) {
    if (names[i] == name) return i;
  }
  std::string all;
  for (const std::string_view each : names) all += (all.empty() ? "" : ", ") + std::string(each);
  fail(ErrorCode::kInvalidArgument, "[{}] expected one of {}, found '{}'", what, all, brief_text(name));
}

void check_text(std::string_view text, std::string_view field, size_t most) {
  if (text.size() > most) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("[check record] {}: expected at most {} bytes, found {}", field, most, text.size()),
                field == "text" ? "store it as a document: mneme import FILE" : "");
  }
  if (!is_valid_utf8(text)) fail(ErrorCode::kInvalidArgument, "[check record] {}: expected valid UTF-8", field);
  if (text.find('\0') != text.npos) {
    fail(ErrorCode::kInvalidArgument, "[check record] {}: expected text, found a zero byte", field);
  }
}

void check_name(std::string_view name, std::string_view field) {
  check_text(name, field, kMaxNameBytes);
  for (const char c : name) {
    if (static_cast<unsigned char>(c) < 32) {
      fail(ErrorCode::kInvalidArgument, "[check record] {}: expected no control characters, found one", field);
    }
  }
}

void check_unit(double value, std::string_view field) {
  if (!(value >= 0 && value <= 1)) {
    fail(ErrorCode::kInvalidArgument, "[check record] {}: expected a number from 0 to 1, found {}", field, value);
  }
}

void check_time(Time time, std::string_view field) {
  if (time < kEarliestTime || time > kLatestTime) {
    fail(ErrorCode::kInvalidArgument, "[check record] {}: expected a time from the year 1 to 9999, found {} us", field,
         time);
  }
}

std::string string_field(const Json& json, const char* key) { return json.value(key, std::string()); }

void put(Json& json, const char* key, const std::string& value) {
  if (!value.empty()) json[key] = value;
}

}  // namespace

std::string_view kind_name(Kind kind) { return kKinds[static_cast<size_t>(kind)]; }
std::string_view state_name(State state) { return kStates[static_cast<size_t>(state)]; }
Kind parse_kind(std::string_view name) { return static_cast<Kind>(find_name(kKinds, name, "kind")); }
State parse_state(std::string_view name) { return static_cast<State>(find_name(kStates, name, "state")); }

void normalise(Record& r) {
  check_text(r.text, "text", kMaxTextBytes);
  if (r.text.find_first_not_of(" \t\r\n") == r.text.npos && !r.pointer) {
    fail(ErrorCode::kInvalidArgument, "[check record] text: expected text, found none");
  }
  for (const auto& [value, field] : {std::pair<const std::string&, const char*>(r.scope.tenant, "tenant"),
                                     {r.scope.user, "user"},
                                     {r.scope.agent, "agent"},
                                     {r.scope.session, "session"},
                                     {r.speaker, "speaker"},
                                     {r.source.type, "source type"}}) {
    check_name(value, field);
  }
  check_text(r.source.uri, "source", kMaxUriBytes);
  if (r.scope.tenant.empty() || r.scope.user.empty()) {
    fail(ErrorCode::kInvalidArgument, "[check record] tenant and user: expected names, found none");
  }
  check_unit(r.confidence, "confidence");
  check_unit(r.importance, "importance");
  check_time(r.event_time, "event time");
  if (r.valid_until) {
    check_time(*r.valid_until, "valid until");
    if (*r.valid_until < r.event_time) {
      fail(ErrorCode::kInvalidArgument, "[check record] valid until: expected a time after {}, found {}",
           format_time(r.event_time), format_time(*r.valid_until));
    }
  }
  if (r.expires_at) check_time(*r.expires_at, "expires at");
  for (std::string& tag : r.tags) {
    check_name(tag, "tag");
    std::transform(tag.begin(), tag.end(), tag.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
    if (tag.empty()) fail(ErrorCode::kInvalidArgument, "[check record] tag: expected a name, found none");
  }
  std::sort(r.tags.begin(), r.tags.end());
  r.tags.erase(std::unique(r.tags.begin(), r.tags.end()), r.tags.end());
  if (r.tags.size() > kMaxTags) {
    fail(ErrorCode::kInvalidArgument, "[check record] expected at most {} tags, found {}", kMaxTags, r.tags.size());
  }
  std::vector<Link> links;
  for (Link& link : r.links) {
    check_text(link.relation, "link", kMaxNameBytes);
    if (!is_record_id(link.to)) {
      fail(ErrorCode::kInvalidArgument, "[check record] link: expected the id of a record, found '{}'",
           brief_text(link.to));
    }
    if (std::find(links.begin(), links.end(), link) == links.end()) links.push_back(std::move(link));
  }
  r.links = std::move(links);
  if (r.links.size() > kMaxLinks) {
    fail(ErrorCode::kInvalidArgument, "[check record] expected at most {} links, found {}", kMaxLinks, r.links.size());
  }
  for (const std::string& parent : r.source.parents) {
    if (!is_record_id(parent)) {
      fail(ErrorCode::kInvalidArgument, "[check record] parent: expected the id of a record, found '{}'",
           brief_text(parent));
    }
  }
  if (r.pointer) {
    check_text(r.pointer->uri, "pointer", kMaxUriBytes);
    check_text(r.pointer->fingerprint, "fingerprint", kMaxNameBytes);
  }
  const bool points = r.kind == Kind::kKvSegment || r.kind == Kind::kAdapter;
  if (points != r.pointer.has_value()) {
    fail(ErrorCode::kInvalidArgument, "[check record] {}: expected {} pointer", kind_name(r.kind), points ? "a" : "no");
  }
  if (!r.metadata.is_null() && !r.metadata.is_object()) {
    fail(ErrorCode::kInvalidArgument, "[check record] metadata: expected a JSON object, found {}",
         r.metadata.type_name());
  }
  if (!r.metadata.is_null()) {
    try {
      check_text(r.metadata.dump(), "metadata", kMaxMetadataBytes);
    } catch (const Json::exception&) {
      fail(ErrorCode::kInvalidArgument, "[check record] metadata: expected valid UTF-8");
    }
  }
}

Json to_json(const Record& r) {
  Json json = {{"id", r.id},
               {"version", r.version},
               {"state", state_name(r.state)},
               {"kind", kind_name(r.kind)},
               {"text", r.text},
               {"tenant", r.scope.tenant},
               {"user", r.scope.user}};
  put(json, "agent", r.scope.agent);
  put(json, "session", r.scope.session);
  put(json, "speaker", r.speaker);
  json["event_time"] = format_time(r.event_time);
  json["recorded_at"] = format_time(r.recorded_at);
  if (r.valid_until) json["valid_until"] = format_time(*r.valid_until);
  if (r.expires_at) json["expires_at"] = format_time(*r.expires_at);
  if (r.confidence != 1) json["confidence"] = r.confidence;
  if (r.importance != 0.5) json["importance"] = r.importance;
  if (!r.source.type.empty() || !r.source.uri.empty() || !r.source.parents.empty()) {
    Json source = Json::object();
    put(source, "type", r.source.type);
    put(source, "uri", r.source.uri);
    if (!r.source.parents.empty()) source["parents"] = r.source.parents;
    json["source"] = std::move(source);
  }
  if (!r.tags.empty()) json["tags"] = r.tags;
  for (const Link& link : r.links) json["links"].push_back({{"relation", link.relation}, {"to", link.to}});
  if (r.pointer) {
    json["pointer"] = {
        {"uri", r.pointer->uri}, {"fingerprint", r.pointer->fingerprint}, {"bytes", r.pointer->bytes}};
  }
  if (!r.metadata.is_null()) json["metadata"] = r.metadata;
  put(json, "merged_into", r.merged_into);
  return json;
}

Record record_from_json(const Json& json, std::string_view what) {
  try {
    if (!json.is_object()) fail(ErrorCode::kCorruptData, "[read record] {}: expected an object", what);
    Record r;
    r.id = json.at("id").get<std::string>();
    r.version = json.at("version").get<uint32_t>();
    r.state = parse_state(json.at("state").get<std::string>());
    r.kind = parse_kind(json.at("kind").get<std::string>());
    r.text = json.at("text").get<std::string>();
    r.scope.tenant = json.at("tenant").get<std::string>();
    r.scope.user = json.at("user").get<std::string>();
    r.scope.agent = string_field(json, "agent");
    r.scope.session = string_field(json, "session");
    r.speaker = string_field(json, "speaker");
    r.event_time = parse_time(json.at("event_time").get<std::string>());
    r.recorded_at = parse_time(json.at("recorded_at").get<std::string>());
    if (json.contains("valid_until")) r.valid_until = parse_time(json["valid_until"].get<std::string>());
    if (json.contains("expires_at")) r.expires_at = parse_time(json["expires_at"].get<std::string>());
    r.confidence = json.value("confidence", 1.0);
    r.importance = json.value("importance", 0.5);
    if (json.contains("source")) {
      const Json& source = json["source"];
      r.source = {string_field(source, "type"), string_field(source, "uri"),
                  source.value("parents", std::vector<std::string>())};
    }
    r.tags = json.value("tags", std::vector<std::string>());
    if (json.contains("links")) {
      for (const Json& link : json["links"]) {
        r.links.push_back({link.at("relation").get<std::string>(), link.at("to").get<std::string>()});
      }
    }
    if (json.contains("pointer")) {
      const Json& pointer = json["pointer"];
      r.pointer = Pointer{pointer.at("uri").get<std::string>(), pointer.at("fingerprint").get<std::string>(),
                          pointer.at("bytes").get<uint64_t>()};
    }
    if (json.contains("metadata")) r.metadata = json["metadata"];
    r.merged_into = string_field(json, "merged_into");
    if (!is_record_id(r.id)) fail(ErrorCode::kCorruptData, "[read record] {}: expected an id", what);
    return r;
  } catch (const Json::exception& e) {
    fail(ErrorCode::kCorruptData, "[read record] {}: {}", what, brief_text(e.what(), 120));
  } catch (const Error& e) {
    if (e.code() == ErrorCode::kCorruptData) throw;
    fail(ErrorCode::kCorruptData, "[read record] {}: {}", what, e.what());
  }
}

std::string new_record_id() {
  std::array<unsigned char, kIdLength> bytes;
  size_t have = 0;
  while (have < bytes.size()) {
    const ssize_t n = getrandom(bytes.data() + have, bytes.size() - have, 0);
    if (n < 0) fail_errno("make id", "getrandom");
    have += static_cast<size_t>(n);
  }
  std::string id;
  for (const unsigned char byte : bytes) id += kIdDigits[byte % 32];
  return id;
}

bool is_record_id(std::string_view id, bool prefix) {
  const bool length = prefix ? id.size() >= 4 && id.size() <= kIdLength : id.size() == kIdLength;
  return length && id.find_first_not_of(kIdDigits) == id.npos;
}

}  // namespace mneme::recall
