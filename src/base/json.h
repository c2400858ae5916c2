#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace mneme {

/// JSON value that keeps the order of object keys, as chat templates and reports need.
using Json = nlohmann::ordered_json;

/// JSON value whose objects are sorted by key, for files with many keys: finding and adding one is logarithmic, where
/// Json looks at every key.
using SortedJson = nlohmann::json;

/// Parses one JSON document. `what` names the source in the message of the Error(kCorruptData) thrown for bad syntax,
/// invalid UTF-8 or nesting deeper than `max_depth`.
Json parse_json(std::string_view text, std::string_view what, int max_depth = 128);
/// The same into a SortedJson.
SortedJson parse_sorted_json(std::string_view text, std::string_view what, int max_depth = 128);

/// `text` as it may stand inside a message of one line: shortened(), then control characters and bad UTF-8 escaped as
/// in JSON, without the quotes.
std::string brief_text(std::string_view text, size_t most = 60);

}  // namespace mneme
