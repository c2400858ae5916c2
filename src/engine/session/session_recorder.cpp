#include "engine/session/session_recorder.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "engine/sampling/sampler.h"

namespace mneme {
namespace {

SessionIdentity identity_of(const Engine& engine) {
  std::string name = std::filesystem::path(engine.file().path()).filename().string();
  return {std::move(name), engine.identity(), engine.state_options().kv.name(),
          static_cast<uint32_t>(engine.model().blocks.size())};
}

}  // namespace

SessionRecorder::SessionRecorder(Engine& engine, const std::string& path)
    : session_(path, identity_of(engine), engine.ledger()) {
  SessionContent content = session_.load([&] { return engine.make_state(); });
  engine.check_tokens(content.tokens);
  tokens_ = std::move(content.tokens);
  details_ = std::move(content.details);
  conversation_->state = std::move(content.state);
  if (conversation_->state) {
    conversation_->tokens.assign(tokens_.begin(), tokens_.begin() + conversation_->state->n_tokens());
  }
}

void SessionRecorder::follow(GenerationRequest& request, std::function<Json(const std::string& text)> details) {
  tokens_ = request.prompt;
  answer_.clear();
  n_unsaved_ = 0;
  request.conversation = conversation_;
  request.on_event = [this, details = std::move(details),
                      forward = std::move(request.on_event)](const GenerationEvent& event) {
    if (forward) forward(event);
    on_event(event, details);
  };
}

void SessionRecorder::on_event(const GenerationEvent& event, const std::function<Json(const std::string&)>& details) {
  answer_ += event.text;
  if (event.sampler != nullptr) sampler_ = event.sampler->save_state();
  if (event.token == nullptr) return;
  tokens_.push_back(event.token->token);
  // The first token ends a prompt, which may have been long.
  if (tokens_.size() % kInterval != 0 && n_unsaved_++ != 0) return;
  save(details(answer_), SaveDepth::kProgress);
}

void SessionRecorder::save(Json details) {
  save(std::move(details), SaveDepth::kComplete);
}

void SessionRecorder::save(Json details, SaveDepth depth) {
  // A request that was refused leaves the conversation as it was before.
  const std::vector<TokenId>& seen = conversation_->tokens;
  if (seen.size() > tokens_.size() || !std::equal(seen.begin(), seen.end(), tokens_.begin())) tokens_ = seen;
  details_ = std::move(details);
  if (!sampler_.is_null()) details_["sampler"] = sampler_;
  session_.save({conversation_->state.get(), tokens_, details_}, depth);
}

void SessionRecorder::reset() {
  *conversation_ = Conversation();
  tokens_.clear();
}

std::string SessionRecorder::take_trouble() {
  if (session_.trouble() == reported_) return {};
  reported_ = session_.trouble();
  return reported_;
}

}  // namespace mneme
