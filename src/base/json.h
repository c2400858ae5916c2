#pragma once

#include <nlohmann/json.hpp>

#include <string_view>

namespace mneme {

/// JSON value that keeps the order of object keys, as chat templates and reports need.
using Json = nlohmann::ordered_json;

/// Parses one JSON document. `what` names the source in the message of the Error(kCorruptData) thrown for bad syntax,
/// invalid UTF-8 or nesting deeper than `max_depth`.
Json parse_json(std::string_view text, std::string_view what, int max_depth = 128);

}  // namespace mneme
