#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "model/chat/capabilities.h"
#include "model/chat/jinja/runtime.h"
#include "model/prompt_segment.h"

namespace mneme {

class Metadata;
class Tokenizer;

namespace jinja {
class Template;
}

/// What a conversation is rendered with besides its messages.
struct RenderOptions {
  Json tools;                         ///< List of {"type": "function", "function": {...}}, or null.
  Json documents;                     ///< List of objects, or null.
  bool add_generation_prompt = true;  ///< End with the opening of the assistant's turn.
  Json extra;          ///< Object with further variables of the template (date_string, enable_thinking, ...), or null.
  jinja::Clock clock;  ///< For strftime_now; local time when empty.
  jinja::Limits limits;
};

/// The chat template of a model: turns a conversation into the prompt that the model was trained on.
///
/// Templates come with model files and are untrusted: they run in a sandbox with limits. Messages are untrusted, too:
/// the prompt is returned in segments, and only the template's own text may hold control tokens (PromptSegment). What a
/// template cannot express is rewritten (adapt.h), so that every template takes system messages, tools, tool calls,
/// tool results and lists of text parts.
///
/// Immutable; may be used from many threads at once.
class ChatTemplate {
 public:
  /// `bos` and `eos` are the texts of those tokens. Throws Error with the line when the template cannot be parsed.
  static ChatTemplate from_source(std::string source, std::string bos, std::string eos);
  /// ChatML, for models that bring no template.
  static ChatTemplate fallback_chatml();

  /// Renders `messages` (see check_messages()). Throws Error(kInvalidArgument) for malformed messages, for what the
  /// template refuses (its own words in the message) and for exceeded limits; Error(kUnsupported) for Jinja outside the
  /// subset.
  std::vector<PromptSegment> render(const Json& messages, const RenderOptions& options) const;
  /// The same prompt as one string.
  std::string render_text(const Json& messages, const RenderOptions& options) const;

  const ChatCapabilities& capabilities() const { return capabilities_; }
  const std::string& source() const { return source_; }
  const std::string& bos() const { return bos_; }

 private:
  ChatTemplate(std::string source, std::string bos, std::string eos);
  std::vector<PromptSegment> render_as_is(const Json& messages, const RenderOptions& options) const;

  std::string source_, bos_, eos_;
  std::shared_ptr<const jinja::Template> template_;
  ChatCapabilities capabilities_;
};

/// The template of a model file, `tokenizer.chat_template`, with the texts of its BOS and EOS; nothing when the model
/// was not made for chat. Throws Error when the template cannot be parsed.
std::optional<ChatTemplate> load_chat_template(const Metadata& metadata, const Tokenizer& tokenizer);

/// Text of all segments.
std::string segments_text(const std::vector<PromptSegment>& segments);

}  // namespace mneme
