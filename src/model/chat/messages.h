#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace mneme {

/// Checks a conversation as clients send it: a non-empty array of objects with `role` (string) and `content` (string,
/// null, or a list of {"type": "text", "text": ...} parts; for tool results also an object), optionally `tool_calls`
/// [{"id", "type": "function", "function": {"name", "arguments": string or object}}], `tool_call_id`, `name`,
/// `reasoning_content`. Throws Error(kInvalidArgument) that names the place, e.g. "messages[3].role", and
/// Error(kUnsupported) for parts that are no text.
void check_messages(const Json& messages);

/// Checks a list of {"type": "function", "function": {"name": ...}} descriptions; null is no tools.
void check_tools(const Json& tools);

/// The text of a content: the string itself, the parts joined by line ends, "" for null or nothing, JSON for an object.
std::string content_text(const Json& message);

/// One line of JSON with ", " and ": " between, as templates' tojson writes it.
std::string one_line_json(const Json& value);

}  // namespace mneme
