#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "engine/grammar/char_set.h"

namespace mneme {

/// What a rule of a grammar may match: a tree.
struct Expression {
  enum class Kind : uint8_t {
    kLiteral,       ///< the code points of `text` in order; empty matches nothing at all
    kCharacters,    ///< one code point of `characters`
    kRule,          ///< what rule number `rule` matches
    kSequence,      ///< all `parts` in order
    kAlternatives,  ///< any one of `parts`
    kRepeat,        ///< parts[0], `min` to `max` times
  };
  static constexpr uint32_t kUnlimited = std::numeric_limits<uint32_t>::max();

  Kind kind = Kind::kSequence;
  std::u32string text;
  CharSet characters;
  uint32_t rule = 0;
  uint32_t min = 0, max = 0;
  std::vector<Expression> parts;
};

/// A context-free grammar over code points. Rules are referred to by number.
struct Rules {
  std::vector<std::string> names;
  std::vector<Expression> bodies;
  uint32_t root = 0;
};

}  // namespace mneme
