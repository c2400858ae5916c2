#include "model/chat/chat_template.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "model/chat/adapt.h"
#include "model/chat/jinja/print.h"
#include "model/chat/jinja/template.h"
#include "model/chat/messages.h"
#include "model/tokenizer/tokenizer.h"
#include "weights/metadata.h"

namespace mneme {
namespace {

constexpr const char* kChatMl =
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Roles that templates put into control tokens ('<|' + role + '|>'). They count as the template's own text; all other
/// roles are data like the rest of a message.
constexpr std::array<std::string_view, 12> kTrustedRoles = {
    "system",   "user",  "assistant",    "tool",          "developer",   "ipython",
    "function", "model", "tool_results", "tool_response", "observation", "environment"};

constexpr std::array<std::string_view, 6> kReserved = {"messages",  "tools",    "documents", "add_generation_prompt",
                                                       "bos_token", "eos_token"};

void trust_roles(jinja::Value& messages) {
  const auto role_key = jinja::make_text("role");
  for (const jinja::Value& message : messages.as_list().items) {
    if (!message.is_dict()) continue;
    const jinja::Value* role = message.as_dict().find(std::string_view("role"));
    if (role == nullptr || !role->is_string()) continue;
    const auto known = std::find(kTrustedRoles.begin(), kTrustedRoles.end(), role->as_view());
    if (known != kTrustedRoles.end()) message.as_dict().set(role_key, *known);
  }
}

void check_extra(const Json& extra) {
  if (extra.is_null()) return;
  if (!extra.is_object()) {
    fail(ErrorCode::kInvalidArgument, "[chat template] expected an object of further variables, got {}",
         extra.type_name());
  }
  for (const auto& [name, value] : extra.items()) {
    if (std::find(kReserved.begin(), kReserved.end(), name) != kReserved.end()) {
      fail(ErrorCode::kInvalidArgument, "[chat template] the variable '{}' cannot be set from outside", name);
    }
  }
}

}  // namespace

ChatTemplate::ChatTemplate(std::string source, std::string bos, std::string eos)
    : source_(std::move(source)),
      bos_(std::move(bos)),
      eos_(std::move(eos)),
      template_(std::make_shared<const jinja::Template>(source_)) {
  const auto render_probe = [&](const Json& messages, const Json& tools, const Json& documents,
                                bool add_generation_prompt) -> std::optional<std::string> {
    RenderOptions options;
    options.tools = tools;
    options.documents = documents;
    options.add_generation_prompt = add_generation_prompt;
    options.limits.steps = 100'000;  // A probe is one short conversation.
    try {
      return segments_text(render_as_is(messages, options));
    } catch (const Error&) {
      return std::nullopt;
    }
  };
  capabilities_ = probe_capabilities(render_probe, bos_);
}

ChatTemplate ChatTemplate::from_source(std::string source, std::string bos, std::string eos) {
  return {std::move(source), std::move(bos), std::move(eos)};
}

ChatTemplate ChatTemplate::fallback_chatml() {
  return {kChatMl, "", "<|im_end|>"};
}

std::vector<PromptSegment> ChatTemplate::render_as_is(const Json& messages, const RenderOptions& options) const {
  jinja::Runtime runtime(options.limits, options.clock);
  jinja::Template::Variables variables;
  jinja::Value message_values = jinja::from_json(runtime, messages, true);
  trust_roles(message_values);
  variables.emplace_back("messages", std::move(message_values));
  if (!options.tools.is_null()) variables.emplace_back("tools", jinja::from_json(runtime, options.tools, true));
  if (!options.documents.is_null())
    variables.emplace_back("documents", jinja::from_json(runtime, options.documents, true));
  variables.emplace_back("add_generation_prompt", options.add_generation_prompt);
  variables.emplace_back("bos_token", jinja::make_text(bos_));
  variables.emplace_back("eos_token", jinja::make_text(eos_));
  if (options.extra.is_object()) {
    for (const auto& [name, value] : options.extra.items()) {
      variables.emplace_back(name, jinja::from_json(runtime, value, true));
    }
  }
  std::vector<PromptSegment> segments;
  template_->render(runtime, variables).for_each_run([&](std::string_view text, bool is_data) {
    segments.push_back({std::string(text), !is_data});
  });
  return segments;
}

std::vector<PromptSegment> ChatTemplate::render(const Json& messages, const RenderOptions& options) const {
  check_messages(messages);
  check_tools(options.tools);
  check_extra(options.extra);
  if (!options.documents.is_null() && !options.documents.is_array()) {
    fail(ErrorCode::kInvalidArgument, "[chat template] expected a list of documents, got {}",
         options.documents.type_name());
  }
  AdaptedRequest request = adapt_request(messages, options.tools, options.documents, capabilities_);
  RenderOptions adapted = options;
  adapted.tools = std::move(request.tools);
  adapted.documents = std::move(request.documents);
  return render_as_is(request.messages, adapted);
}

std::string ChatTemplate::render_text(const Json& messages, const RenderOptions& options) const {
  return segments_text(render(messages, options));
}

std::optional<ChatTemplate> load_chat_template(const Metadata& metadata, const Tokenizer& tokenizer) {
  const auto source = metadata.find_string("tokenizer.chat_template");
  if (!source) return std::nullopt;
  const auto text_of = [&](std::optional<TokenId> id) { return id ? std::string(tokenizer.text(*id)) : std::string(); };
  return ChatTemplate::from_source(std::string(*source), text_of(tokenizer.bos()), text_of(tokenizer.eos()));
}

std::string segments_text(const std::vector<PromptSegment>& segments) {
  std::string text;
  for (const PromptSegment& segment : segments) text += segment.text;
  return text;
}

}  // namespace mneme
