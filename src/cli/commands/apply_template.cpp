#include <fmt/format.h>

#include <memory>
#include <optional>
#include <string>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/json.h"
#include "budget/ledger.h"
#include "cli/commands.h"
#include "cli/input_text.h"
#include "model/chat/chat_template.h"
#include "model/tokenizer/tokenizer.h"
#include "weights/model_file.h"

namespace mneme::cli {
namespace {

struct Options {
  std::string source, bos, eos;
  std::optional<bool> add_generation_prompt;
  bool show_capabilities = false;
};

bool is_template_file(const std::string& path) {
  return path.ends_with(".jinja") || path.ends_with(".jinja2");
}

ChatTemplate open_template(const Options& options) {
  if (is_template_file(options.source)) {
    return ChatTemplate::from_source(read_text_file(options.source, uint64_t{16} << 20), options.bos, options.eos);
  }
  Ledger ledger;
  const ModelFile model = open_model(options.source, ledger);
  const auto tokenizer = Tokenizer::load(model.metadata());
  auto chat = load_chat_template(model.metadata(), *tokenizer);
  if (!chat) fail(ErrorCode::kNotFound, "[apply-template] {} has no chat template", options.source);
  return std::move(*chat);
}

/// A list of messages, or an object with `messages` and what else a request has; unknown members become variables of
/// the template, as do those of `chat_template_kwargs`.
struct Request {
  Json messages;
  RenderOptions options;
};

Request read_request(const std::string& text) {
  Json body = parse_json(text, "messages on stdin");
  Request request;
  if (!body.is_object()) {
    request.messages = std::move(body);
    return request;
  }
  request.options.extra = Json::object();
  for (const auto& [name, value] : body.items()) {
    if (name == "messages") {
      request.messages = value;
    } else if (name == "tools") {
      request.options.tools = value;
    } else if (name == "documents") {
      request.options.documents = value;
    } else if (name == "add_generation_prompt") {
      if (!value.is_boolean()) {
        fail(ErrorCode::kInvalidArgument, "[apply-template] expected true or false for {}, got {}", name,
             value.type_name());
      }
      request.options.add_generation_prompt = value.get<bool>();
    } else if (name == "chat_template_kwargs" && value.is_object()) {
      request.options.extra.update(value);
    } else {
      request.options.extra[name] = value;
    }
  }
  return request;
}

std::string dump(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

void print_capabilities(const ChatTemplate& chat, const GlobalOptions& global) {
  const Json capabilities = to_json(chat.capabilities());
  if (global.json) {
    fmt::print("{}\n", dump(capabilities));
    return;
  }
  for (const auto& [name, value] : capabilities.items())
    fmt::print("{:<26}{}\n", name, value.get<bool>() ? "yes" : "no");
}

void apply_template(const Options& options, const GlobalOptions& global) {
  const ChatTemplate chat = open_template(options);
  if (options.show_capabilities) {
    print_capabilities(chat, global);
    return;
  }
  Request request = read_request(read_stdin());
  if (options.add_generation_prompt) request.options.add_generation_prompt = *options.add_generation_prompt;
  const std::vector<PromptSegment> segments = chat.render(request.messages, request.options);
  if (!global.json) {
    fmt::print("{}", segments_text(segments));
    return;
  }
  Json parts = Json::array();
  for (const PromptSegment& segment : segments) parts.push_back({{"text", segment.text}, {"special", segment.special}});
  fmt::print("{}\n", dump({{"prompt", segments_text(segments)}, {"segments", std::move(parts)}}));
}

}  // namespace

void add_apply_template(CLI::App& app, GlobalOptions& global) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("apply-template", "Print the prompt that a chat template makes of messages");
  command->add_option("source", options->source, "Model file, or a template in a .jinja file")
      ->required()
      ->type_name("MODEL|FILE.jinja");
  command->add_option("--bos", options->bos, "Text of the BOS token, for a template in a file (default: none)");
  command->add_option("--eos", options->eos, "Text of the EOS token, for a template in a file (default: none)");
  command->add_flag("--add-generation-prompt,!--no-generation-prompt", options->add_generation_prompt,
                    "End with the opening of the assistant's turn (default: as the request says, else yes)");
  command->add_flag("--capabilities", options->show_capabilities,
                    "Print what the template can express, instead of a prompt; reads no messages");
  command->footer(
      "Messages come on stdin: a JSON list, or an object with messages, tools, documents and variables of the "
      "template.\n"
      "With --json the prompt also comes in segments: special ones are the template's own text, the others came with "
      "the\n"
      "messages and never hold control tokens.\n"
      "Example: echo '[{\"role\": \"user\", \"content\": \"Hello\"}]' | mneme apply-template model.gguf");
  command->callback([options, &global] { apply_template(*options, global); });
}

}  // namespace mneme::cli
