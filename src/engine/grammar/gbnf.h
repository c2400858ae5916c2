#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "engine/grammar/rules.h"

namespace mneme {

/// Limits of a grammar text; what is beyond them is refused.
struct GbnfLimits {
  static constexpr size_t kTextBytes = size_t{1} << 20;
  static constexpr int kNesting = 128;
  static constexpr uint32_t kRepetition = 1'000'000;
};

/// Parses a grammar in GBNF:
///
///   name ::= alternatives          names of letters, digits and '-'; the start symbol is `root`; # begins a comment
///   "text"  [a-z_]  [^"\n]  .      literal, one character of a class, one not of it, any character
///   name  ( ... )  a | b           reference, group, alternatives
///   x*  x+  x?  x{3}  x{2,}  x{2,5}
///
/// Escapes in literals and classes: \n \r \t \\ \" \[ \] \- \^ \xHH \uHHHH \UHHHHHHHH (code points, not bytes). A rule
/// ends with its line, except inside parentheses, after `::=` and after `|`.
///
/// Throws Error(kInvalidArgument) with line and column for bad syntax, undefined or repeated rules, a missing root, m >
/// n and repetitions above the limit. Left recursion is found when the grammar is compiled (Grammar).
Rules parse_gbnf(std::string_view text);

/// The characters as a GBNF literal, quoted and escaped. `text` must be UTF-8.
std::string gbnf_literal(std::string_view text);
/// The set as a GBNF character class.
std::string gbnf_class(const CharSet& characters);

}  // namespace mneme
