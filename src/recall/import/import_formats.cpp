#include "recall/import/import_formats.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "base/lines.h"
#include "base/utf8.h"
#include "recall/import/chunk.h"
#include "recall/time_text.h"

namespace mneme::recall {
namespace {

constexpr std::array<std::string_view, 5> kFormats = {"chat", "markdown", "text", "mem0", "mcp"};

/// Keys of foreign metadata that would name an owner.
constexpr std::array<std::string_view, 6> kIdentityKeys = {"user_id", "agent_id", "run_id",
                                                           "actor_id", "app_id", "tenant"};

class Parser {
 public:
  explicit Parser(const ImportSource& source) : source_(source) {}

  void chat(std::string_view text) {
    for_each_line(text, [&](std::string_view line, size_t number) {
      const std::string what = fmt::format("{}:{}", source_.name, number);
      const Json json = object(line, what);
      if (!json.contains("messages")) {
        message(json, what, string_of(json, "session_id"), number);
        return;
      }
      if (!json["messages"].is_array()) refuse(what, "expected a list of messages");
      std::string session = string_of(json, "id");
      if (session.empty()) session = string_of(json, "session_id");
      if (session.empty()) session = std::to_string(number);
      for (const Json& each : json["messages"]) message(each, what, session, number);
    });
  }

  void document(std::string_view text, bool markdown) {
    std::string before;
    size_t number = 0;
    for (Chunk& chunk : chunk_text(text, markdown)) {
      Record& record = add(Kind::kDocument, std::move(chunk.text));
      record.source.type = "file";
      record.metadata = {{"piece", ++number}};
      if (!chunk.heading.empty()) record.metadata["heading"] = chunk.heading;
      if (!before.empty()) record.links.push_back({"follows", before});
      before = record.id;
    }
  }

  void mem0(std::string_view text) {
    const Json json = parse_json(text, source_.name);
    const Json* list = &json;
    for (const char* key : {"results", "memories"}) {
      if (json.is_object() && json.contains(key)) list = &json[key];
    }
    if (!list->is_array()) refuse(source_.name, "expected a list of memories");
    for (size_t i = 0; i < list->size(); ++i) {
      const Json& item = (*list)[i];
      const std::string what = fmt::format("{}: memory {}", source_.name, i + 1);
      if (!item.is_object()) refuse(what, "expected an object");
      std::string memory = string_of(item, "memory");
      if (memory.empty()) memory = string_of(item, "text");
      if (blank(memory)) {
        ++out_.skipped;
        continue;
      }
      Record& record = add(Kind::kFact, std::move(memory));
      record.source = {"mem0", source_.name + "#" + string_of(item, "id"), {}};
      if (const std::string user = string_of(item, "user_id"); source_.keep_users && !user.empty()) {
        record.scope.user = user;
      }
      if (const std::string agent = string_of(item, "agent_id"); !agent.empty()) record.scope.agent = agent;
      if (const std::string run = string_of(item, "run_id"); !run.empty()) record.scope.session = run;
      record.speaker = string_of(item, "actor_id");
      if (record.speaker.empty()) record.speaker = string_of(item, "role");
      if (item.contains("created_at") && !item["created_at"].is_null()) {
        record.event_time = time_of(item["created_at"], what);
      }
      if (item.contains("expiration_date") && !item["expiration_date"].is_null()) {
        record.expires_at = time_of(item["expiration_date"], what);
      }
      if (item.contains("categories") && item["categories"].is_array()) {
        for (const Json& tag : item["categories"]) {
          if (tag.is_string() && !tag.get_ref<const std::string&>().empty()) record.tags.push_back(tag);
        }
      }
      if (item.contains("metadata") && item["metadata"].is_object()) {
        Json metadata = Json::object();
        for (const auto& [key, value] : item["metadata"].items()) {
          if (std::find(kIdentityKeys.begin(), kIdentityKeys.end(), key) == kIdentityKeys.end()) metadata[key] = value;
        }
        if (!metadata.empty()) record.metadata = std::move(metadata);
      }
    }
  }

  void mcp(std::string_view text) {
    for_each_line(text, [&](std::string_view line, size_t number) {
      const std::string what = fmt::format("{}:{}", source_.name, number);
      const Json json = object(line, what);
      const std::string type = string_of(json, "type");
      if (type == "entity") {
        const std::string name = required(json, "name", what), kind = required(json, "entityType", what);
        if (!json.contains("observations") || !json["observations"].is_array()) {
          refuse(what, "expected a list 'observations'");
        }
        for (const Json& observation : json["observations"]) {
          if (!observation.is_string()) refuse(what, "expected observations as texts");
          mcp_fact(name + ": " + observation.get<std::string>(), kind, {{"entity", name}, {"entity_type", kind}});
        }
      } else if (type == "relation") {
        const std::string from = required(json, "from", what), to = required(json, "to", what),
                          relation = required(json, "relationType", what);
        mcp_fact(from + " " + relation + " " + to, "relation", {{"from", from}, {"relation", relation}, {"to", to}});
      } else {
        refuse(what, "expected type 'entity' or 'relation', found '" + brief_text(type) + "'");
      }
    });
  }

  Imported finish() { return std::move(out_); }

 private:
  [[noreturn]] static void refuse(const std::string& what, const std::string& expected) {
    fail(ErrorCode::kCorruptData, "[import] {}: {}", what, expected);
  }

  static bool blank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == text.npos; }

  static Json object(std::string_view line, const std::string& what) {
    Json json = parse_json(line, what);
    if (!json.is_object()) refuse(what, "expected a JSON object on each line");
    return json;
  }

  /// A text or a number as text; "" when it is missing or something else.
  static std::string string_of(const Json& json, const char* key) {
    if (!json.contains(key)) return {};
    const Json& value = json[key];
    if (value.is_string()) return value.get<std::string>();
    return value.is_number_integer() ? value.dump() : std::string();
  }

  static std::string required(const Json& json, const char* key, const std::string& what) {
    std::string value = string_of(json, key);
    if (value.empty()) refuse(what, fmt::format("expected a text '{}'", key));
    return value;
  }

  /// Seconds or milliseconds since 1970, or a time as text.
  static Time time_of(const Json& json, const std::string& what) {
    if (json.is_string()) {
      try {
        return parse_time(json.get<std::string>());
      } catch (const Error& e) {
        refuse(what, e.what());
      }
    }
    double number = json.is_number() ? json.get<double>() : -1;
    if (number > 1e11) number /= 1e3;  // the year 5138 in seconds
    if (!(number >= 0 && number < 2.5e11)) refuse(what, "expected a time, found " + brief_text(json.dump()));
    return static_cast<Time>(std::llround(number * 1e6));
  }

  Record& add(Kind kind, std::string text) {
    Record record;
    record.id = new_record_id();
    record.kind = kind;
    record.text = std::move(text);
    record.scope = source_.scope;
    record.source = {"import", source_.name, {}};
    record.event_time = source_.time;
    out_.records.push_back(std::move(record));
    return out_.records.back();
  }

  /// Text of a message: a string, or the text parts of a list.
  static std::string content_of(const Json& json, const std::string& what) {
    if (!json.contains("content") || json["content"].is_null()) return {};
    const Json& content = json["content"];
    if (content.is_string()) return content.get<std::string>();
    if (!content.is_array()) refuse(what, "expected content as a text or a list of parts");
    std::string text;
    for (const Json& part : content) {
      const std::string piece = part.is_string() ? part.get<std::string>() : part.is_object() ? string_of(part, "text") : "";
      if (!piece.empty()) text += (text.empty() ? "" : "\n") + piece;
    }
    return text;
  }

  void message(const Json& json, const std::string& what, const std::string& session, size_t number) {
    if (!json.is_object()) refuse(what, "expected messages as objects");
    const std::string role = string_of(json, "role");
    std::string text = content_of(json, what);
    if (role.empty() && !json.contains("content")) refuse(what, "expected 'role' and 'content', or 'messages'");
    if (role == "system" || role == "developer" || role == "tool" || blank(text)) {
      ++out_.skipped;
      return;
    }
    Time time = source_.time;
    for (const char* key : {"timestamp", "created_at", "time"}) {
      if (json.contains(key) && !json[key].is_null()) {
        time = time_of(json[key], what);
        break;
      }
    }
    const std::string name = string_of(json, "name"), id = string_of(json, "id");
    const bool follows = !last_turn_.empty() && session == last_session_;
    // A turn longer than a record is cut like a document.
    std::vector<Chunk> pieces;
    if (text.size() > kMaxTextBytes) {
      pieces = chunk_text(text, false, kMaxTextBytes / 2);
    } else {
      pieces.push_back({std::move(text), {}});
    }
    for (size_t i = 0; i < pieces.size(); ++i) {
      Record& record = add(Kind::kEpisode, std::move(pieces[i].text));
      record.speaker = name.empty() ? role : name;
      if (!session.empty()) record.scope.session = session;
      record.event_time = time;
      record.source = {"conversation", source_.name + "#" + (id.empty() ? std::to_string(number) : id), {}};
      if (i > 0 || follows) record.links.push_back({"follows", last_turn_});
      last_turn_ = record.id;
    }
    last_session_ = session;
  }

  void mcp_fact(std::string text, const std::string& tag, Json metadata) {
    Record& record = add(Kind::kFact, std::move(text));
    record.source.type = "mcp";
    record.tags = {tag};
    record.metadata = std::move(metadata);
  }

  const ImportSource& source_;
  Imported out_;
  std::string last_turn_, last_session_;
};

}  // namespace

ImportFormat parse_import_format(std::string_view name) {
  for (size_t i = 0; i < kFormats.size(); ++i) {
    if (kFormats[i] == name) return static_cast<ImportFormat>(i);
  }
  fail(ErrorCode::kInvalidArgument, "[import] expected format chat, markdown, text, mem0 or mcp, found '{}'",
       brief_text(name));
}

ImportFormat guess_import_format(std::string_view file_name, std::string_view text) {
  if (file_name.ends_with(".md") || file_name.ends_with(".markdown")) return ImportFormat::kMarkdown;
  if (!file_name.ends_with(".json") && !file_name.ends_with(".jsonl")) return ImportFormat::kText;
  const std::string_view head = text.substr(0, 4096);
  if (head.find("\"entityType\"") != head.npos || head.find("\"relationType\"") != head.npos) return ImportFormat::kMcp;
  if (head.find("\"memory\"") != head.npos || file_name.ends_with(".json")) return ImportFormat::kMem0;
  return ImportFormat::kChat;
}

Imported parse_import(std::string_view text, ImportFormat format, const ImportSource& source) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  if (!is_valid_utf8(text)) fail(ErrorCode::kCorruptData, "[import] {}: expected valid UTF-8", source.name);
  Parser parser(source);
  switch (format) {
    case ImportFormat::kChat: parser.chat(text); break;
    case ImportFormat::kMarkdown: parser.document(text, true); break;
    case ImportFormat::kText: parser.document(text, false); break;
    case ImportFormat::kMem0: parser.mem0(text); break;
    case ImportFormat::kMcp: parser.mcp(text); break;
  }
  return parser.finish();
}

}  // namespace mneme::recall
