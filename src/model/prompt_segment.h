#pragma once

#include <string>

namespace mneme {

/// A piece of a rendered prompt. `special` says who wrote it: true for the template's own text, where control tokens such
/// as <|im_end|> are recognised; false for text that came with the messages, which is tokenised as plain text so that a
/// user cannot forge a turn.
///
/// A border between two pieces is no border for the tokenizer's merges: control tokens are looked for inside each special
/// piece, and what lies between two control tokens is joined before it is split into words, so that "\n" + "\nhello"
/// gives the same tokens as "\n\nhello".
struct PromptSegment {
  std::string text;
  bool special = true;

  bool operator==(const PromptSegment&) const = default;
};

}  // namespace mneme
