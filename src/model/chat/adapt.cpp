#include "model/chat/adapt.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "model/chat/messages.h"

namespace mneme {
namespace {

constexpr size_t kShortIdLength = 9;

/// Nine letters and digits for an id, the same each time, so that calls and results still belong together.
std::string short_id(const std::string& id) {
  const bool fits = id.size() == kShortIdLength && std::all_of(id.begin(), id.end(), [](char c) {
                      return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
                    });
  if (fits) return id;
  uint64_t hash = 14695981039346656037ull;  // FNV-1a
  for (const char c : id) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  constexpr std::string_view kDigits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  std::string shortened;
  for (size_t i = 0; i < kShortIdLength; ++i) {
    shortened += kDigits[hash % kDigits.size()];
    hash /= kDigits.size();
  }
  return shortened;
}

bool has_calls(const Json& message) {
  const auto calls = message.find("tool_calls");
  return calls != message.end() && calls->is_array() && !calls->empty();
}

class Adapter {
 public:
  explicit Adapter(const ChatCapabilities& capabilities) : can_(capabilities) {}

  AdaptedRequest run(Json messages, Json tools, Json documents) {
    if (tools.is_array() && tools.empty()) tools = nullptr;
    if (documents.is_array() && documents.empty()) documents = nullptr;
    if (!can_.developer_role) rename_developers(messages);
    describe_in_system_message(messages, tools, documents);
    for (Json& message : messages) add(std::move(message));
    flush_pending();
    if (!can_.string_content) wrap_contents();
    return {std::move(out_), can_.tools ? std::move(tools) : Json(), can_.documents ? std::move(documents) : Json()};
  }

 private:
  static void rename_developers(Json& messages) {
    for (Json& message : messages) {
      if (message["role"] == "developer") message["role"] = "system";
    }
  }

  /// Puts tools and documents that the template would not show into the system message.
  void describe_in_system_message(Json& messages, const Json& tools, const Json& documents) const {
    std::string text;
    if (!tools.is_null() && !can_.tools) {
      text += "You can call these functions, one JSON description a line:\n";
      for (const Json& tool : tools) text.append(one_line_json(tool.value("function", tool))).append(1, '\n');
      text +=
          "To call functions, answer with nothing but JSON of this form:\n"
          "{\"tool_calls\": [{\"name\": \"FUNCTION\", \"arguments\": {\"NAME\": VALUE}}]}\n"
          "The results come in the next message.";
    }
    if (!documents.is_null() && !can_.documents) {
      if (!text.empty()) text += "\n\n";
      text += "Documents to draw on, one a line:";
      for (const Json& document : documents) text.append(1, '\n').append(one_line_json(document));
    }
    if (text.empty()) return;
    if (messages[0]["role"] == "system") {
      const std::string own = content_text(messages[0]);
      messages[0]["content"] = own.empty() ? text : own + "\n\n" + text;
    } else {
      messages.insert(messages.begin(), Json{{"role", "system"}, {"content", text}});
    }
  }

  void add(Json message) {
    if (has_calls(message)) {
      add_calls(std::move(message));
      return;
    }
    message.erase("tool_calls");
    if (!can_.list_content || !message.contains("content") || !message["content"].is_array()) {
      message["content"] = content_text(message);
    }
    if (message["role"] == "tool" && !can_.tool_responses) {
      add_pending(described_result(message));
    } else if (message["role"] == "system" && !can_.system_role) {
      add_pending(content_text(message));
    } else if (message["role"] == "user") {
      add_user(std::move(message));
    } else {
      if (can_.short_tool_call_ids && message.contains("tool_call_id") && message["tool_call_id"].is_string()) {
        message["tool_call_id"] = short_id(message["tool_call_id"].get<std::string>());
      }
      push(std::move(message));
    }
  }

  /// Text that has to wait for the next user message, or becomes one itself.
  void add_pending(const std::string& text) {
    if (!pending_.empty() && !text.empty()) pending_ += "\n\n";
    pending_ += text;
  }

  void add_user(Json message) {
    if (!pending_.empty()) {
      const std::string text = std::exchange(pending_, {}) + "\n\n";
      if (message["content"].is_array()) {
        message["content"].insert(message["content"].begin(), Json{{"type", "text"}, {"text", text}});
      } else {
        message["content"] = text + message["content"].get_ref<const std::string&>();
      }
    }
    out_.push_back(std::move(message));
  }

  void push(Json message) {
    flush_pending();
    out_.push_back(std::move(message));
  }

  void flush_pending() {
    if (!pending_.empty()) out_.push_back({{"role", "user"}, {"content", std::exchange(pending_, {})}});
  }

  static std::string described_result(const Json& message) {
    Json result = Json::object();
    for (const char* key : {"name", "tool_call_id"}) {
      if (message.contains(key)) result[key] = message[key];
    }
    result["content"] = message["content"];
    return one_line_json({{"tool_result", std::move(result)}});
  }

  static std::string described_calls(const Json& message) {
    Json calls = Json::array();
    for (const Json& call : message["tool_calls"]) {
      Json described = {{"name", call["function"]["name"]}, {"arguments", parsed_arguments(call["function"])}};
      if (call.contains("id")) described["id"] = call["id"];
      calls.push_back(std::move(described));
    }
    return one_line_json({{"tool_calls", std::move(calls)}});
  }

  /// Arguments as an object; a string that is no JSON object stays, since models write such arguments, too.
  static Json parsed_arguments(const Json& function) {
    const Json arguments = function.value("arguments", Json());
    if (arguments.is_null()) return Json::object();
    if (!arguments.is_string()) return arguments;
    try {
      Json parsed = parse_json(arguments.get_ref<const std::string&>(), "arguments");
      return parsed.is_object() ? parsed : arguments;
    } catch (const Error&) {
      return arguments;
    }
  }

  void adapt_call(Json& call) const {
    Json& function = call["function"];
    Json arguments = function.value("arguments", Json());
    if (arguments.is_null()) arguments = Json::object();
    if (arguments.is_string() && !can_.string_arguments) arguments = parsed_arguments(function);
    if (!arguments.is_string() && !can_.object_arguments) arguments = one_line_json(arguments);
    function["arguments"] = std::move(arguments);
    if (!call.contains("type")) call["type"] = "function";
    if (can_.short_tool_call_ids) {
      call["id"] = short_id(call.contains("id") && call["id"].is_string() ? call["id"].get<std::string>() : "");
    }
  }

  void add_calls(Json message) {
    const std::string text = content_text(message);
    if (!can_.tool_calls) {
      const std::string calls = described_calls(message);
      message.erase("tool_calls");
      message["content"] = text.empty() ? calls : text + "\n" + calls;
      push(std::move(message));
      return;
    }
    for (Json& call : message["tool_calls"]) adapt_call(call);
    if (text.empty()) {
      const bool was_null = !message.contains("content") || message["content"].is_null();
      const bool null = was_null ? can_.null_content_with_calls : !can_.empty_content_with_calls;
      message["content"] = null ? Json(nullptr) : Json("");
    } else if (can_.empty_content_with_calls) {
      message["content"] = text;
    } else {
      // The template looks at the calls only where there is no content, so that the content goes before them.
      push({{"role", message["role"]}, {"content", text}});
      message["content"] = nullptr;
    }
    push(std::move(message));
  }

  void wrap_contents() {
    for (Json& message : out_) {
      Json& content = message["content"];
      if (content.is_string()) content = Json::array({{{"type", "text"}, {"text", content}}});
    }
  }

  const ChatCapabilities& can_;
  Json out_ = Json::array();
  std::string pending_;
};

}  // namespace

AdaptedRequest adapt_request(Json messages, Json tools, Json documents, const ChatCapabilities& capabilities) {
  return Adapter(capabilities).run(std::move(messages), std::move(tools), std::move(documents));
}

}  // namespace mneme
