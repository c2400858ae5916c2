#pragma once

#include <vector>

#include "model/chat/jinja/runtime.h"

namespace mneme::jinja {

/// What Python's str.isspace() counts as white space.
bool is_space(uint32_t code_point);
bool is_letter(uint32_t code_point);
bool is_digit(uint32_t code_point);

/// Byte range without white space, or without the characters in `chars` when given, at the chosen ends.
Text strip(Runtime& runtime, const Text& text, const Text* chars, bool left, bool right);

/// kTitle: each run of letters begins upper-case; kWords: the same for what follows white space, "-" or an opening
/// bracket; kCapitalized: only the first character.
enum class Case { kLower, kUpper, kTitle, kWords, kCapitalized, kSwapped };
Text change_case(Runtime& runtime, const Text& text, Case to);

/// Replaces the first `limit` occurrences (negative: all), from the left, without overlap.
Text replace(Runtime& runtime, const Text& text, const Text& from, const Text& to, Int limit);

/// Parts between separators, at most `limit` splits (negative: all). Without a separator: words between white space.
std::vector<Value> split(Runtime& runtime, const Text& text, const Text* separator, Int limit);
/// The same, counting splits from the right.
std::vector<Value> split_from_right(Runtime& runtime, const Text& text, const Text* separator, Int limit);
/// Lines without their ends.
std::vector<Value> split_lines(Runtime& runtime, const Text& text);

/// Concatenation of the texts of all values, with `separator` between.
Text join(Runtime& runtime, const std::vector<Value>& values, const Text& separator);

/// Pads with spaces (or `fill`) to `width` characters; `align` is '<', '>' or '^'.
Text pad(Runtime& runtime, const Text& text, size_t width, char align, const Text& fill);

/// `&`, `<`, `>` and quotes as HTML entities.
Text escape_html(Runtime& runtime, const Text& text);

}  // namespace mneme::jinja
