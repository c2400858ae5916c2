#include "model/chat/messages.h"

#include <fmt/format.h>

#include "base/error.h"
#include "model/chat/jinja/print.h"

namespace mneme {
namespace {

[[noreturn]] void fail_place(const std::string& place, std::string_view expected, const Json& found) {
  fail(ErrorCode::kInvalidArgument, "[chat template] expected {} in {}, got {}", expected, place, found.type_name());
}

const Json& member(const Json& object, const char* name) {
  static const Json kMissing;
  const auto found = object.find(name);
  return found == object.end() ? kMissing : *found;
}

void check_part(const Json& part, const std::string& place) {
  if (!part.is_object() || !member(part, "type").is_string()) fail_place(place, "an object with a type", part);
  const auto& type = part["type"].get_ref<const std::string&>();
  if (type != "text") {
    fail(ErrorCode::kUnsupported, "[chat template] only text parts are supported, got type '{}' in {}", type, place);
  }
  if (!member(part, "text").is_string()) fail_place(place + ".text", "a string", member(part, "text"));
}

void check_content(const Json& message, const std::string& place) {
  const Json& content = member(message, "content");
  if (content.is_array()) {
    for (size_t i = 0; i < content.size(); ++i) check_part(content[i], fmt::format("{}.content[{}]", place, i));
  } else if (!content.is_string() && !content.is_null() && !(content.is_object() && message["role"] == "tool")) {
    fail_place(place + ".content", "a string, null or a list of parts", content);
  }
}

void check_tool_calls(const Json& calls, const std::string& place) {
  if (!calls.is_array()) fail_place(place, "a list", calls);
  for (size_t i = 0; i < calls.size(); ++i) {
    const std::string call_place = fmt::format("{}[{}]", place, i);
    if (!calls[i].is_object()) fail_place(call_place, "an object", calls[i]);
    const Json& function = member(calls[i], "function");
    if (!function.is_object()) fail_place(call_place + ".function", "an object", function);
    if (!member(function, "name").is_string())
      fail_place(call_place + ".function.name", "a string", member(function, "name"));
    const Json& arguments = member(function, "arguments");
    if (!arguments.is_string() && !arguments.is_object() && !arguments.is_null()) {
      fail_place(call_place + ".function.arguments", "a string or an object", arguments);
    }
  }
}

}  // namespace

void check_messages(const Json& messages) {
  if (!messages.is_array() || messages.empty()) fail_place("messages", "a non-empty list", messages);
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string place = fmt::format("messages[{}]", i);
    const Json& message = messages[i];
    if (!message.is_object()) fail_place(place, "an object", message);
    const Json& role = member(message, "role");
    if (!role.is_string() || role.get_ref<const std::string&>().empty())
      fail_place(place + ".role", "a role name", role);
    check_content(message, place);
    const Json& calls = member(message, "tool_calls");
    if (!calls.is_null()) check_tool_calls(calls, place + ".tool_calls");
  }
}

void check_tools(const Json& tools) {
  if (tools.is_null()) return;
  if (!tools.is_array()) fail_place("tools", "a list", tools);
  for (size_t i = 0; i < tools.size(); ++i) {
    const std::string place = fmt::format("tools[{}]", i);
    if (!tools[i].is_object()) fail_place(place, "an object", tools[i]);
    const Json& function = member(tools[i], "function");
    if (!function.is_object()) fail_place(place + ".function", "an object", function);
    if (!member(function, "name").is_string())
      fail_place(place + ".function.name", "a string", member(function, "name"));
  }
}

std::string content_text(const Json& message) {
  const Json& content = member(message, "content");
  if (content.is_null()) return {};
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) return one_line_json(content);
  std::string text;
  for (const Json& part : content) {
    if (!text.empty()) text += '\n';
    text += part["text"].get_ref<const std::string&>();
  }
  return text;
}

std::string one_line_json(const Json& value) {
  jinja::Runtime runtime(jinja::Limits{UINT64_MAX}, {});
  return std::string(jinja::to_json_text(runtime, jinja::from_json(runtime, value, true), {}).view());
}

}  // namespace mneme
