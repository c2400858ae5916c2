#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "recall/record.h"

namespace mneme {

/// Conversations of LoCoMo: "Evaluating Very Long-Term Conversational Memory of LLM Agents", arXiv 2402.17753. Long
/// chats of two people over many sessions, and questions whose evidence is known by turn.
///
/// Categories by number, as the files have them: 1 needs several turns, 2 is about time, 3 needs knowledge of the
/// world, 4 is in one turn, 5 asks for what was never said. Papers name and order them differently.
struct LocomoTurn {
  std::string id;  ///< "D3:14": turn 14 of session 3.
  std::string speaker, text;
  std::string caption;  ///< Of an image that was sent along; often empty.
};

struct LocomoSession {
  int number = 0;
  std::string date;  ///< "1:56 pm on 8 May, 2023"
  recall::Time time = 0;
  std::vector<LocomoTurn> turns;
};

/// An assertion that was extracted from turns.
struct LocomoObservation {
  size_t session = 0;  ///< Index in the conversation.
  std::string speaker, text;
  std::vector<std::string> turns;
};

struct LocomoQuestion {
  std::string text;
  int category = 0;                   ///< 1 to 5
  std::vector<std::string> evidence;  ///< Distinct ids of turns, at least one.
};

struct LocomoConversation {
  std::string id;
  std::vector<LocomoSession> sessions;  ///< Oldest first.
  std::vector<LocomoObservation> observations;
  std::vector<LocomoQuestion> questions;
  size_t n_unknown_ids = 0;       ///< Pieces of evidence that name no turn; dropped.
  size_t n_without_evidence = 0;  ///< Questions left out, since no evidence was left.
};

constexpr int kLocomoCategories = 5;

/// Ids in a piece of evidence: "D8:6; D9:17" holds two, "D:11:26" none.
std::vector<std::string> locomo_ids(std::string_view text);

/// Reads the list of samples of a LoCoMo file; unknown fields are passed over. Throws Error(kCorruptData) that names
/// the sample and field.
std::vector<LocomoConversation> parse_locomo(std::string_view text, const std::string& name);

}  // namespace mneme
