#include "eval/locomo.h"

#include <algorithm>
#include <charconv>
#include <unordered_set>

#include "base/error.h"
#include "recall/time_text.h"

namespace mneme {
namespace {

[[noreturn]] void refuse(const std::string& what, const std::string& expected) {
  fail(ErrorCode::kCorruptData, "[read LoCoMo] {}: expected {}", what, expected);
}

const Json& member(const Json& json, const std::string& key, const std::string& what) {
  if (!json.is_object() || !json.contains(key)) refuse(what, "'" + key + "'");
  return json[key];
}

std::string string_of(const Json& json, const std::string& key, const std::string& what) {
  const Json& value = member(json, key, what);
  if (!value.is_string()) refuse(what, "'" + key + "' as a text");
  return value.get<std::string>();
}

/// N of "session_N", or 0.
int session_number(const std::string& key) {
  constexpr std::string_view kBegin = "session_";
  if (!key.starts_with(kBegin)) return 0;
  int number = 0;
  const auto [end, error] = std::from_chars(key.data() + kBegin.size(), key.data() + key.size(), number);
  return error == std::errc() && end == key.data() + key.size() && number > 0 ? number : 0;
}

LocomoSession session_of(const Json& conversation, const std::string& key, int number, const std::string& what) {
  LocomoSession session;
  session.number = number;
  session.date = string_of(conversation, key + "_date_time", what);
  session.time = recall::parse_time(session.date);
  const Json& turns = conversation[key];
  if (!turns.is_array()) refuse(what + " " + key, "a list of turns");
  for (const Json& json : turns) {
    const std::string place = fmt::format("{} {} turn {}", what, key, session.turns.size() + 1);
    LocomoTurn turn{string_of(json, "dia_id", place), string_of(json, "speaker", place), string_of(json, "text", place),
                    ""};
    if (json.contains("blip_caption")) turn.caption = string_of(json, "blip_caption", place);
    session.turns.push_back(std::move(turn));
  }
  return session;
}

void add_observations(const Json& observation, const std::string& what, LocomoConversation& out) {
  if (!observation.is_object()) refuse(what, "'observation' as an object");
  for (size_t i = 0; i < out.sessions.size(); ++i) {
    const std::string key = fmt::format("session_{}_observation", out.sessions[i].number);
    if (!observation.contains(key)) continue;
    if (!observation[key].is_object()) refuse(what + " " + key, "an object with a list for each speaker");
    for (const auto& [speaker, list] : observation[key].items()) {
      if (!list.is_array()) refuse(what + " " + key, "a list for each speaker");
      for (const Json& item : list) {
        if (!item.is_array() || item.size() != 2 || !item[0].is_string()) refuse(what + " " + key, "[text, turn]");
        LocomoObservation found{i, speaker, item[0].get<std::string>(), {}};
        const Json turns = item[1].is_array() ? item[1] : Json::array({item[1]});
        for (const Json& turn : turns) {
          if (!turn.is_string()) refuse(what + " " + key, "ids of turns as texts");
          for (std::string& id : locomo_ids(turn.get<std::string>())) found.turns.push_back(std::move(id));
        }
        out.observations.push_back(std::move(found));
      }
    }
  }
}

void add_questions(const Json& list, const std::string& what, LocomoConversation& out) {
  std::unordered_set<std::string> known;
  for (const LocomoSession& session : out.sessions) {
    for (const LocomoTurn& turn : session.turns) known.insert(turn.id);
  }
  if (!list.is_array()) refuse(what, "'qa' as a list");
  for (const Json& json : list) {
    const std::string place = fmt::format("{} question {}", what, out.questions.size() + out.n_without_evidence + 1);
    LocomoQuestion question;
    question.text = string_of(json, "question", place);
    const Json& category = member(json, "category", place);
    if (!category.is_number_integer()) refuse(place, "'category' as a number");
    question.category = category.get<int>();
    if (question.category < 1 || question.category > kLocomoCategories) refuse(place, "a category from 1 to 5");
    const Json& evidence = member(json, "evidence", place);
    if (!evidence.is_array()) refuse(place, "'evidence' as a list");
    for (const Json& piece : evidence) {
      if (!piece.is_string()) refuse(place, "evidence as texts");
      const std::vector<std::string> ids = locomo_ids(piece.get<std::string>());
      out.n_unknown_ids += ids.empty();
      for (const std::string& id : ids) {
        if (!known.contains(id)) {
          ++out.n_unknown_ids;
        } else if (std::find(question.evidence.begin(), question.evidence.end(), id) == question.evidence.end()) {
          question.evidence.push_back(id);
        }
      }
    }
    if (question.evidence.empty()) {
      ++out.n_without_evidence;
    } else {
      out.questions.push_back(std::move(question));
    }
  }
}

}  // namespace

std::vector<std::string> locomo_ids(std::string_view text) {
  std::vector<std::string> ids;
  for (size_t at = text.find('D'); at != text.npos; at = text.find('D', at + 1)) {
    int session = 0, turn = 0;
    const char* const end = text.data() + text.size();
    const auto first = std::from_chars(text.data() + at + 1, end, session);
    if (first.ec != std::errc() || first.ptr == end || *first.ptr != ':') continue;
    const auto second = std::from_chars(first.ptr + 1, end, turn);
    if (second.ec == std::errc() && session > 0 && turn > 0) ids.push_back(fmt::format("D{}:{}", session, turn));
  }
  return ids;
}

std::vector<LocomoConversation> parse_locomo(std::string_view text, const std::string& name) {
  const Json json = parse_json(text, name);
  if (!json.is_array() || json.empty()) refuse(name, "a list of conversations");
  std::vector<LocomoConversation> all;
  for (const Json& sample : json) {
    std::string what = fmt::format("{}: sample {}", name, all.size() + 1);
    LocomoConversation conversation;
    conversation.id = string_of(sample, "sample_id", what);
    what = name + ": " + conversation.id;
    const Json& chat = member(sample, "conversation", what);
    if (!chat.is_object()) refuse(what, "'conversation' as an object");
    // A date may be there without its session.
    for (const auto& [key, value] : chat.items()) {
      const int number = session_number(key);
      if (number > 0) conversation.sessions.push_back(session_of(chat, key, number, what));
    }
    if (conversation.sessions.empty()) refuse(what, "sessions");
    std::sort(conversation.sessions.begin(), conversation.sessions.end(),
              [](const auto& a, const auto& b) { return a.time != b.time ? a.time < b.time : a.number < b.number; });
    if (sample.contains("observation")) add_observations(sample["observation"], what, conversation);
    add_questions(member(sample, "qa", what), what, conversation);
    all.push_back(std::move(conversation));
  }
  return all;
}

}  // namespace mneme
