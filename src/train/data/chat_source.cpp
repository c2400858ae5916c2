#include "train/data/chat_source.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"
#include "base/lines.h"
#include "train/data/documents.h"

namespace mneme::train {
namespace {

constexpr size_t kHoldOutEvery = 30;

[[noreturn]] void refuse(std::string_view what, size_t line, const std::string& path) {
  fail(ErrorCode::kCorruptData, "[chat data] expected {}, found another on line {} of {}", what, line, path);
}

Turn read_turn(const Json& message, size_t line, const std::string& path) {
  if (!message.is_object() || !message.contains("role") || !message.contains("content") ||
      !message["role"].is_string() || !message["content"].is_string()) {
    refuse("messages with strings \"role\" and \"content\"", line, path);
  }
  const auto role = message["role"].get<std::string>();
  auto text = message["content"].get<std::string>();
  if (role == "system") return {Speaker::kSystem, TurnKind::kStatement, std::move(text)};
  if (role == "user") return {Speaker::kUser, TurnKind::kStatement, std::move(text)};
  if (role == "assistant") return {Speaker::kAssistant, TurnKind::kAnswer, std::move(text)};
  fail(ErrorCode::kCorruptData, "[chat data] expected a role system, user or assistant, found {} on line {} of {}",
       brief_text(role), line, path);
}

std::vector<Turn> read_conversation(std::string_view text, size_t line, const std::string& path) {
  const Json object = parse_json(text, fmt::format("line {} of {}", line, path));
  if (!object.is_object() || !object.contains("messages") || !object["messages"].is_array()) {
    refuse("an object with a list \"messages\"", line, path);
  }
  std::vector<Turn> turns;
  for (const Json& message : object["messages"]) turns.push_back(read_turn(message, line, path));
  if (std::none_of(turns.begin(), turns.end(),
                   [](const Turn& turn) { return turn.speaker == Speaker::kAssistant && !turn.text.empty(); })) {
    refuse("a message of the assistant with text", line, path);
  }
  return turns;
}

}  // namespace

ChatSource::ChatSource(std::span<const std::string> paths) {
  std::vector<std::vector<Turn>> all;
  for (const std::string& path : text_files(paths)) {
    const std::string text = checked_text(path);
    for_each_line(text,
                  [&](std::string_view line, size_t number) { all.push_back(read_conversation(line, number, path)); });
  }
  for (size_t i = 0; i < all.size(); ++i) {
    const bool hold_out = all.size() > 1 && i % kHoldOutEvery == std::min(kHoldOutEvery, all.size()) - 1;
    (hold_out ? held_out_ : train_).push_back(std::move(all[i]));
  }
}

const std::vector<Turn>& ChatSource::conversation(PhiloxStream& random, Split split) const {
  const auto& part = split == Split::kHeldOut && !held_out_.empty() ? held_out_ : train_;
  return part[random.next_below(part.size())];
}

}  // namespace mneme::train
