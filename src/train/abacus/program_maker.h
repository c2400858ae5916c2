#pragma once

#include <string>
#include <string_view>

#include "base/philox.h"
#include "train/data/vocabulary_split.h"

namespace mneme::train::abacus {

/// A function in words and in Abacus.
struct DescribedProgram {
  std::string prompt;     ///< A comment that says what f does, and the line's beginning: "; ...\n(def f (xs)".
  std::string solution;   ///< The rest of the definition, without a line end: " (sum xs))".
  std::string structure;  ///< What it does without its numbers, such as "xs keep-above map-times sum".
  std::string key;        ///< The same with numbers; two programs of one key compute the same.

  std::string text() const { return prompt + solution + "\n"; }
};

/// Makes random programs of three kinds: steps through a list (keep, change each, reorder, sum up), a choice by a
/// condition on a number, and arithmetic with two numbers. The words that describe a step are drawn among a few.
///
/// Structures and keys are split by a hash: programs for training have neither a held-out structure nor a held-out key;
/// held-out ones have at least one of them. Each is about a sixth.
DescribedProgram make_program(PhiloxStream& random, Split split);

/// kHeldOut when a program with this structure and key must not be trained on.
Split split_of_program(std::string_view structure, std::string_view key);

}  // namespace mneme::train::abacus
