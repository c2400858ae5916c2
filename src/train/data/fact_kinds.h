#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "train/data/vocabulary_split.h"

/// What generated dialogues talk about: kinds of facts with the sentences that state, change, ask and answer them.
namespace mneme::train {

/// Where the subject of a fact comes from.
enum class SubjectType : uint8_t {
  kPerson,   ///< An invented name.
  kOwn,      ///< Something of the user: "my cat", answered as "your cat".
  kThing,    ///< A thing with a definite article: "the safe".
  kUser,     ///< The user: "I", answered as "you".
};

/// Where the value of a fact comes from.
enum class ValueType : uint8_t { kName, kPlace, kColour, kFood, kJob, kAnimal, kCode, kAge, kDay, kContainer, kHobby };

/// Sentences use {s} for the subject and {v} for the value.
struct FactKind {
  SubjectType subject;
  ValueType value;
  std::span<const std::string_view> subjects;   ///< Nouns for kOwn and kThing.
  std::span<const std::string_view> statements; ///< The user tells it.
  std::span<const std::string_view> updates;    ///< The user says that it changed.
  std::span<const std::string_view> questions;
  std::string_view answer;    ///< What the assistant says.
  std::string_view known;     ///< As the long-term memory hands it over in a system message.
  std::string_view unknown;   ///< "I don't know {this}."
};

std::span<const FactKind> fact_kinds();

/// A fact about one subject.
struct Fact {
  size_t kind;
  std::string subject;  ///< Name or noun, without article.
  std::string value;
};

/// A random fact of the given half of the vocabulary; persons are taken from `people` (not empty).
/// `open_words`: as in invent_value.
Fact invent_fact(PhiloxStream& random, Split split, std::span<const std::string> people,
                 std::span<const std::string> open_words = {});
/// A random value of a type. Types with a short list (colours, foods, ...) take a word of `open_words` instead most of
/// the time, when there are any: a model that meets only the words of a list learns the list, and not to copy.
std::string invent_value(PhiloxStream& random, Split split, ValueType type,
                         std::span<const std::string> open_words = {});

/// Fills a sentence pattern.
std::string fill(std::string_view pattern, std::string_view subject, std::string_view value);

}  // namespace mneme::train
