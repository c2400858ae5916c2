#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "train/data/fact_kinds.h"
#include "train/data/text_source.h"

namespace mneme::train {

enum class Speaker : uint8_t { kSystem, kUser, kAssistant };

/// What a turn is, which decides its weight in the loss and how it is evaluated.
enum class TurnKind : uint8_t {
  kStatement,  ///< The user states or changes facts; also system messages.
  kQuestion,
  kAnswer,     ///< The assistant repeats a fact that it was told.
  kRefusal,    ///< The assistant says that it doesn't know.
  kChatter,    ///< Greetings, acknowledgements, requests.
  kText,       ///< A story or a passage of a book.
};

struct Turn {
  Speaker speaker;
  TurnKind kind;
  std::string text;
  size_t value_begin = 0, value_end = 0;  ///< kAnswer: where the copied value lies in `text`.
};

/// Sizes of a generated dialogue. Lengths are in characters; about 3.5 make a token.
struct DialogueOptions {
  size_t max_chars = 1000;
  size_t max_filler_chars = 600;  ///< Longest story or passage in one turn.
  double filler_share = 0.4;      ///< Part of the dialogue that is distraction.
};

/// Makes dialogues that state facts, change them, distract, and ask them back, in one half of the vocabulary.
class DialogueMaker {
 public:
  DialogueMaker(const TextSource& texts, Split split) : texts_(texts), split_(split) {}

  /// A dialogue of about max_chars that ends with questions.
  std::vector<Turn> make(PhiloxStream& random, const DialogueOptions& options) const;

  /// A test: facts are told, then `filler_chars` of distraction, then one question; the last turn is its answer, or a
  /// refusal when `answerable` is false.
  std::vector<Turn> make_probe(PhiloxStream& random, size_t n_facts, size_t filler_chars, bool answerable) const;

 private:
  const TextSource& texts_;
  Split split_;
};

}  // namespace mneme::train
