#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/json.h"
#include "engine/engine.h"
#include "engine/generation.h"
#include "engine/scheduler.h"
#include "engine/session/session_recorder.h"
#include "model/chat/chat_template.h"

namespace mneme {

/// One dialogue with a model: its messages, and the sequence that holds what the model has read of them.
class ChatSession {
 public:
  /// `engine` and `cache` (or null) must outlive the session. The template comes from the model's metadata unless one
  /// is given.
  ChatSession(Engine& engine, ChatTemplate chat_template, PrefixCache* cache = nullptr);

  /// Goes on with the dialogue that `recorder` brought back, and saves all that follows. Throws Error(kInvalidArgument)
  /// when its session is plain text. `recorder` must outlive the session. Call it before anything else.
  void keep_in(SessionRecorder& recorder);
  /// Replaces the system message; empty removes it.
  void set_system(const std::string& text);
  /// Adds the user's text, generates the answer and adds it too. `request` carries sampling, limits and callbacks; its
  /// prompt and conversation are filled in here. A cancelled answer is kept as far as it came. Throws Error, and then the
  /// messages are as before.
  GenerationResult ask(const std::string& text, GenerationRequest request);
  /// Answers the last user message again. Throws Error(kInvalidArgument) when there is none.
  GenerationResult ask_again(GenerationRequest request);
  /// Removes the last question and its answer; false when there is none.
  bool undo();
  /// Forgets all messages but the system message.
  void reset();

  const Json& messages() const { return messages_; }
  /// Tokens that the model holds of the dialogue.
  size_t n_tokens() const { return conversation_->tokens.size(); }
  const std::vector<TokenId>& tokens() const { return conversation_->tokens; }
  /// Drops what the model holds of the dialogue; the next answer computes it anew.
  void recompute() { *conversation_ = Conversation(); }
  /// Ends the answer that is being generated; may be called from a signal-driven thread or an event.
  void cancel();

 private:
  std::vector<TokenId> prompt() const;
  GenerationResult answer(GenerationRequest request);
  void save();

  Engine& engine_;
  ChatTemplate template_;
  Json messages_ = Json::array();
  std::shared_ptr<Conversation> conversation_ = std::make_shared<Conversation>();
  Scheduler scheduler_;
  Scheduler::RequestId current_ = 0;
  SessionRecorder* recorder_ = nullptr;
};

/// The template of a model: `tokenizer.chat_template`, or nothing when the model was not made for chat.
std::optional<ChatTemplate> model_chat_template(const Engine& engine);

}  // namespace mneme
