// Chat templates with any source over any messages. The input is two bytes of capabilities, the template up to a zero
// byte, and the messages as JSON; what is no JSON becomes the text of one message.
#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "model/chat/adapt.h"
#include "model/chat/jinja/print.h"
#include "model/chat/jinja/template.h"
#include "model/chat/messages.h"

namespace {

using namespace mneme;

/// Part of every conversation; must never come out as the template's own text. It depends on the template, so that no
/// template can contain it.
std::string data_marker(std::string_view source) {
  return fmt::format("{:016x}", std::hash<std::string_view>{}(source));
}

Json read_messages(const std::string& text, const std::string& marker) {
  Json messages;
  try {
    messages = parse_json(text, "messages", 32);
    check_messages(messages);
  } catch (const Error&) {
    messages = Json::array({{{"role", "user"}, {"content", text}}});
  }
  messages.push_back({{"role", "user"}, {"content", marker}});
  return messages;
}

ChatCapabilities capabilities_from(uint32_t bits) {
  ChatCapabilities can;
  bool* const flags[] = {&can.system_role,
                         &can.developer_role,
                         &can.tools,
                         &can.documents,
                         &can.tool_calls,
                         &can.tool_responses,
                         &can.object_arguments,
                         &can.string_arguments,
                         &can.short_tool_call_ids,
                         &can.list_content,
                         &can.null_content_with_calls,
                         &can.empty_content_with_calls,
                         &can.string_content};
  for (bool* flag : flags) {
    *flag = (bits & 1) != 0;
    bits >>= 1;
  }
  can.string_content = can.string_content || !can.list_content;
  return can;
}

void render(const std::string& source, const Json& messages, std::string_view marker) {
  jinja::Limits limits;
  limits.steps = 20'000;
  limits.output_bytes = 1 << 16;
  jinja::Runtime runtime(limits, [] { return std::tm{}; });
  const jinja::Template parsed(source);
  const jinja::Text prompt = parsed.render(runtime, {{"messages", jinja::from_json(runtime, messages, true)},
                                                     {"add_generation_prompt", true},
                                                     {"bos_token", jinja::make_text("<s>")}});
  prompt.for_each_run([marker](std::string_view text, bool is_data) {
    if (!is_data && text.find(marker) != text.npos) std::abort();
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const uint32_t bits = data[0] | static_cast<uint32_t>(data[1]) << 8;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const size_t split = std::min(text.find('\0'), text.size());
  const std::string source(text.substr(0, split));
  const std::string rest(text.substr(std::min(split + 1, text.size())));
  const std::string marker = data_marker(source);
  try {
    const Json tools = Json::array({{{"type", "function"}, {"function", {{"name", "f"}}}}});
    render(source, adapt_request(read_messages(rest, marker), tools, {}, capabilities_from(bits)).messages, marker);
  } catch (const Error&) {
  }
  return 0;
}
