#include "model/chat/capabilities.h"

#include <string_view>

namespace mneme {
namespace {

constexpr const char* kUserText = "ProbeUserText";
constexpr const char* kCalledName = "probe_called_name";
constexpr const char* kOtherName = "probe_other_name";
constexpr const char* kToolName = "probe_tool_name";
constexpr const char* kCallId = "probe1234";
constexpr const char* kLongCallId = "call_probe_0123456789";
constexpr const char* kArgumentsText = R"({"probe_argument": "probe_value"})";

Json message(const char* role, const Json& content) {
  return {{"role", role}, {"content", content}};
}

Json text_parts(const char* text) {
  return Json::array({{{"type", "text"}, {"text", text}}});
}

Json arguments_object() {
  return {{"probe_argument", "probe_value"}};
}

Json tool_call(const char* name, const char* id, const Json& arguments) {
  return {{"id", id}, {"type", "function"}, {"function", {{"name", name}, {"arguments", arguments}}}};
}

Json tool_description() {
  const Json argument = {{"type", "string"}, {"description", "probe argument"}};
  const Json parameters = {{"type", "object"},
                           {"properties", {{"probe_argument", argument}}},
                           {"required", Json::array({"probe_argument"})}};
  return {{"type", "function"},
          {"function", {{"name", kToolName}, {"description", "probe tool"}, {"parameters", parameters}}}};
}

size_t count(const std::string& text, std::string_view word) {
  size_t found = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + word.size())) ++found;
  return found;
}

class Probe {
 public:
  Probe(ProbeRender render, const std::string& bos) : render_(render), bos_(bos) {}

  ChatCapabilities run() {
    probe_content();
    probe_roles();
    probe_tools();
    probe_calls();
    probe_responses();
    return found_;
  }

 private:
  std::string render(const Json& messages, bool add_generation_prompt = true) const {
    return render_(messages, tools_, {}, add_generation_prompt).value_or("");
  }
  static bool has(const std::string& text, const char* word) { return text.find(word) != std::string::npos; }

  Json user() const { return message("user", found_.string_content ? Json(kUserText) : text_parts(kUserText)); }
  Json content(const char* text) const { return found_.string_content ? Json(text) : text_parts(text); }

  void probe_content() {
    const std::string with_string = render(Json::array({message("user", kUserText)}));
    const std::string with_list = render(Json::array({message("user", text_parts(kUserText))}));
    found_.string_content = has(with_string, kUserText);
    found_.list_content = has(with_list, kUserText) && (with_string == with_list || !found_.string_content);
    // A template that shows neither takes strings, as all templates once did.
    if (!found_.list_content) found_.string_content = true;
    const std::string& base = found_.string_content ? with_string : with_list;
    found_.writes_bos = !bos_.empty() && base.starts_with(bos_);
    found_.generation_prompt = base != render(Json::array({user()}), false);
  }

  void probe_roles() {
    const auto shows = [&](const char* role, const char* text) {
      return has(render(Json::array({message(role, content(text)), user()})), text);
    };
    found_.system_role = shows("system", "ProbeSystemText");
    found_.developer_role = shows("developer", "ProbeDeveloperText");
  }

  void probe_tools() {
    const Json conversation = Json::array({user()});
    const Json described = Json::array({tool_description()});
    found_.tools = has(render_(conversation, described, {}, true).value_or(""), kToolName);
    if (found_.tools) tools_ = described;
    const Json documents = Json::array({{{"title", "probe"}, {"text", "ProbeDocumentText"}}});
    found_.documents = has(render_(conversation, tools_, documents, true).value_or(""), "ProbeDocumentText");
  }

  std::string render_calls(const Json& content, const Json& calls) const {
    Json assistant = message("assistant", content);
    assistant["tool_calls"] = calls;
    return render(Json::array({user(), assistant}));
  }

  /// Whether the arguments appear as JSON or as names and values, not as JSON inside a string or as Python's repr().
  static bool shows_arguments(const std::string& text, bool as_string) {
    if (!has(text, kCalledName)) return false;
    if (as_string) return has(text, kArgumentsText);
    return has(text, "probe_value") && !has(text, "\\\"probe_argument") && !has(text, "'probe_argument'");
  }

  void probe_calls() {
    struct Variant {
      Json content;
      bool string_arguments;
      std::string text;
      bool works = false;
    };
    Variant variants[] = {{"", false, {}}, {"", true, {}}, {nullptr, false, {}}, {nullptr, true, {}}};
    for (Variant& each : variants) {
      const Json arguments = each.string_arguments ? Json(kArgumentsText) : arguments_object();
      each.text = render_calls(each.content, Json::array({tool_call(kCalledName, kCallId, arguments)}));
      each.works = shows_arguments(each.text, each.string_arguments);
    }
    // Null that is printed adds a "None" to what the empty content gives.
    for (size_t i = 2; i < 4; ++i) {
      if (count(variants[i].text, "None") > count(variants[i - 2].text, "None")) variants[i].works = false;
    }
    found_.object_arguments = variants[0].works || variants[2].works;
    found_.string_arguments = variants[1].works || variants[3].works;
    found_.empty_content_with_calls = variants[0].works || variants[1].works;
    found_.null_content_with_calls = variants[2].works || variants[3].works;
    found_.tool_calls = found_.object_arguments || found_.string_arguments;
    if (!found_.tool_calls) return;
    call_content_ = found_.empty_content_with_calls ? Json("") : Json(nullptr);
    call_arguments_ = found_.object_arguments ? arguments_object() : Json(kArgumentsText);
    const std::string two =
        render_calls(call_content_, Json::array({tool_call(kCalledName, kCallId, call_arguments_),
                                                 tool_call(kOtherName, "probe5678", call_arguments_)}));
    found_.parallel_tool_calls = has(two, kCalledName) && has(two, kOtherName);
    const std::string long_id =
        render_calls(call_content_, Json::array({tool_call(kCalledName, kLongCallId, call_arguments_)}));
    found_.short_tool_call_ids = !has(long_id, kCalledName);
  }

  void probe_responses() {
    Json assistant = message("assistant", found_.tool_calls ? call_content_ : content("ProbeAssistantText"));
    if (found_.tool_calls) assistant["tool_calls"] = Json::array({tool_call(kCalledName, kCallId, call_arguments_)});
    Json response = message("tool", content("ProbeResponseText"));
    response["tool_call_id"] = kCallId;
    response["name"] = kCalledName;
    const std::string text = render(Json::array({user(), assistant, response}));
    found_.tool_responses = has(text, "ProbeResponseText");
    found_.tool_call_ids = found_.tool_responses && has(text, kCallId);
  }

  ProbeRender render_;
  const std::string& bos_;
  ChatCapabilities found_;
  Json tools_;
  Json call_content_, call_arguments_;
};

}  // namespace

ChatCapabilities probe_capabilities(ProbeRender render, const std::string& bos) {
  return Probe(render, bos).run();
}

Json to_json(const ChatCapabilities& c) {
  return {{"system_role", c.system_role},
          {"developer_role", c.developer_role},
          {"tools", c.tools},
          {"documents", c.documents},
          {"tool_calls", c.tool_calls},
          {"parallel_tool_calls", c.parallel_tool_calls},
          {"tool_responses", c.tool_responses},
          {"tool_call_ids", c.tool_call_ids},
          {"object_arguments", c.object_arguments},
          {"string_arguments", c.string_arguments},
          {"short_tool_call_ids", c.short_tool_call_ids},
          {"null_content_with_calls", c.null_content_with_calls},
          {"empty_content_with_calls", c.empty_content_with_calls},
          {"string_content", c.string_content},
          {"list_content", c.list_content},
          {"generation_prompt", c.generation_prompt},
          {"writes_bos", c.writes_bos}};
}

}  // namespace mneme
