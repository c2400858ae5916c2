#include "base/json.h"

#include "base/error.h"
#include "base/utf8.h"

namespace mneme {

namespace {

constexpr size_t kLongestReason = 240;

template <typename Value>
Value parse(std::string_view text, std::string_view what, int max_depth) {
  const auto limit_depth = [&](int depth, typename Value::parse_event_t, Value&) {
    if (depth > max_depth) fail(ErrorCode::kCorruptData, "[parse JSON] {}: nested deeper than {}", what, max_depth);
    return true;
  };
  try {
    return Value::parse(text, limit_depth);
  } catch (const nlohmann::json::exception& e) {
    // Keep the library's reason ("... at line 3, column 7: ...") without its own prefix.
    std::string_view reason = e.what();
    if (const size_t bracket = reason.find("] "); bracket != std::string_view::npos) reason.remove_prefix(bracket + 2);
    // The library quotes what it read last, control characters escaped, however long it is.
    fail(ErrorCode::kCorruptData, "[parse JSON] {}: {}", what, shortened(reason, kLongestReason));
  }
}

}  // namespace

Json parse_json(std::string_view text, std::string_view what, int max_depth) {
  return parse<Json>(text, what, max_depth);
}

SortedJson parse_sorted_json(std::string_view text, std::string_view what, int max_depth) {
  return parse<SortedJson>(text, what, max_depth);
}

std::string brief_text(std::string_view text, size_t most) {
  const std::string json = Json(shortened(text, most)).dump(-1, ' ', false, Json::error_handler_t::replace);
  return json.substr(1, json.size() - 2);
}

}  // namespace mneme
