#pragma once

#include <functional>
#include <memory>

#include "engine/engine.h"
#include "engine/generation.h"
#include "engine/session/session.h"

namespace mneme {

/// Ties a conversation to a session: brings it back, and saves it as it grows.
class SessionRecorder {
 public:
  /// Tokens of an answer between two saves.
  static constexpr uint32_t kInterval = 32;

  /// Opens the session of this engine's model and policy at `path`. Throws Error as Session does.
  SessionRecorder(Engine& engine, const std::string& path);

  /// What the session brought back: hand it to requests.
  const std::shared_ptr<Conversation>& conversation() const { return conversation_; }
  /// All tokens of the text; the conversation's state may cover less.
  const std::vector<TokenId>& tokens() const { return tokens_; }
  const Json& details() const { return details_; }

  /// Makes the request save what it does. `details(text)` describes the dialogue with the answer so far; the sampler's
  /// state is added as "sampler".
  void follow(GenerationRequest& request, std::function<Json(const std::string& text)> details);
  /// Saves everything, when nothing runs. Ends what follow() began.
  void save(Json details);
  /// Forgets text and state (what is on disk changes with the next save).
  void reset();

  const Session& session() const { return session_; }
  /// A problem that was not reported yet, or nothing.
  std::string take_trouble();

 private:
  void on_event(const GenerationEvent& event, const std::function<Json(const std::string&)>& details);
  void save(Json details, SaveDepth depth);

  Session session_;
  std::shared_ptr<Conversation> conversation_ = std::make_shared<Conversation>();
  std::vector<TokenId> tokens_;
  Json details_, sampler_;
  std::string answer_, reported_;
  uint32_t n_unsaved_ = 0;
};

}  // namespace mneme
