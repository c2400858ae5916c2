#pragma once

#include <cstdint>
#include <vector>

namespace mneme {

/// Properties of a code point that tokenizers ask for, as bits: the general categories (two-letter ones where a
/// pre-tokenizer needs them) and White_Space, which is `\s` in all their expressions.
enum CharClass : uint16_t {
  kUpper = 1 << 0,           ///< Lu
  kLower = 1 << 1,           ///< Ll
  kTitle = 1 << 2,           ///< Lt
  kModifierLetter = 1 << 3,  ///< Lm
  kOtherLetter = 1 << 4,     ///< Lo
  kNonspacingMark = 1 << 5,  ///< Mn
  kOtherMark = 1 << 6,       ///< Mc, Me
  kNumber = 1 << 7,          ///< N
  kPunctuation = 1 << 8,     ///< P
  kSymbol = 1 << 9,          ///< S
  kControl = 1 << 10,        ///< Cc, Cf, Cs, Co; unassigned code points have no class
  kSpace = 1 << 11,          ///< White_Space

  kLetter = kUpper | kLower | kTitle | kModifierLetter | kOtherLetter,
  kMark = kNonspacingMark | kOtherMark,
};

/// Bits of CharClass for a code point; 0 above U+10FFFF.
uint16_t char_classes(uint32_t code_point);

/// Simple lower-case mapping.
uint32_t lower_case(uint32_t code_point);

/// Canonical decomposition (NFD) of one code point; itself when it has none.
std::vector<uint32_t> decompose(uint32_t code_point);

}  // namespace mneme
