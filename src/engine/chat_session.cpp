#include "engine/chat_session.h"

#include <algorithm>

#include "base/error.h"

namespace mneme {
namespace {

/// Messages from a file, as templates expect them.
const Json& checked_messages(const Json& messages, const std::string& path) {
  const bool good = messages.is_array() && std::all_of(messages.begin(), messages.end(), [](const Json& message) {
                      return message.is_object() && message.contains("role") && message["role"].is_string() &&
                             message.contains("content") && message["content"].is_string();
                    });
  if (!good) fail(ErrorCode::kCorruptData, "[session] {}: expected a list of messages, found something else", path);
  return messages;
}

}  // namespace

ChatSession::ChatSession(Engine& engine, ChatTemplate chat_template, PrefixCache* cache)
    : engine_(engine), template_(std::move(chat_template)), scheduler_(engine, cache) {}

void ChatSession::keep_in(SessionRecorder& recorder) {
  const Json& details = recorder.details();
  if (!recorder.tokens().empty() && !details.contains("messages")) {
    fail(ErrorCode::kInvalidArgument, "[session] {}: expected a chat, found plain text: use --raw",
         recorder.session().path());
  }
  if (details.contains("messages")) messages_ = checked_messages(details.at("messages"), recorder.session().path());
  conversation_ = recorder.conversation();
  recorder_ = &recorder;
}

void ChatSession::save() {
  if (recorder_ != nullptr) recorder_->save({{"messages", messages_}});
}

void ChatSession::set_system(const std::string& text) {
  if (!messages_.empty() && messages_[0].at("role") == "system") messages_.erase(messages_.begin());
  if (!text.empty()) messages_.insert(messages_.begin(), Json{{"role", "system"}, {"content", text}});
}

std::vector<TokenId> ChatSession::prompt() const {
  const RenderOptions options;
  return engine_.tokenizer().encode_segments(template_.render(messages_, options), true);
}

GenerationResult ChatSession::answer(GenerationRequest request) {
  request.prompt = prompt();
  request.conversation = conversation_;
  if (recorder_ != nullptr) {
    recorder_->follow(request, [this](const std::string& text) {
      Json messages = messages_;
      messages.push_back({{"role", "assistant"}, {"content", text}});
      return Json{{"messages", std::move(messages)}};
    });
  }
  GenerationResult result;
  const auto forward = std::move(request.on_event);
  request.on_event = [&](const GenerationEvent& event) {
    if (forward) forward(event);
    if (event.finished != nullptr) result = *event.finished;
  };
  current_ = scheduler_.submit(std::move(request));
  scheduler_.run();
  if (result.reason == FinishReason::kError) throw Error(ErrorCode::kOutOfBudget, result.error);
  messages_.push_back({{"role", "assistant"}, {"content", result.text}});
  save();
  return result;
}

GenerationResult ChatSession::ask(const std::string& text, GenerationRequest request) {
  messages_.push_back({{"role", "user"}, {"content", text}});
  try {
    return answer(std::move(request));
  } catch (...) {
    messages_.erase(messages_.size() - 1);
    throw;
  }
}

GenerationResult ChatSession::ask_again(GenerationRequest request) {
  const Json before = messages_;
  while (!messages_.empty() && messages_.back().at("role") == "assistant") messages_.erase(messages_.size() - 1);
  if (messages_.empty() || messages_.back().at("role") != "user") {
    messages_ = before;
    fail(ErrorCode::kInvalidArgument, "[chat] there is no question to answer again");
  }
  try {
    return answer(std::move(request));
  } catch (...) {
    messages_ = before;
    throw;
  }
}

bool ChatSession::undo() {
  size_t n = messages_.size();
  while (n > 0 && messages_[n - 1].at("role") != "user") --n;
  if (n == 0) return false;
  while (messages_.size() >= n) messages_.erase(messages_.size() - 1);
  save();
  return true;
}

void ChatSession::reset() {
  const bool has_system = !messages_.empty() && messages_[0].at("role") == "system";
  while (messages_.size() > (has_system ? 1u : 0u)) messages_.erase(messages_.size() - 1);
  *conversation_ = Conversation();
  if (recorder_ != nullptr) recorder_->reset();
  save();
}

void ChatSession::cancel() { scheduler_.cancel(current_); }

std::optional<ChatTemplate> model_chat_template(const Engine& engine) {
  const auto source = engine.file().metadata().find_string("tokenizer.chat_template");
  if (!source) return std::nullopt;
  const auto text_of = [&](std::optional<TokenId> id) {
    return id ? std::string(engine.tokenizer().text(*id)) : std::string();
  };
  return ChatTemplate::from_source(std::string(*source), text_of(engine.tokenizer().bos()), text_of(engine.tokenizer().eos()));
}

}  // namespace mneme
