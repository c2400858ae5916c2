#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mneme {

/// A text as the pre-tokenizers see it. A byte that belongs to no character counts as U+FFFD, a symbol.
struct CodePoints {
  std::vector<uint32_t> values;     ///< [n]
  std::vector<uint16_t> classes;    ///< [n] CharClass bits
  std::vector<uint32_t> byte_ends;  ///< [n] where each one ends in the text
};

CodePoints decode_code_points(std::string_view text);

/// One splitting expression: appends the ends of the pieces that [begin, end) falls into, the last one being `end`.
/// Indices are of code points; begin < end.
using SplitStep = void (*)(const CodePoints& text, size_t begin, size_t end, std::vector<size_t>& ends);

/// How a family of byte-pair vocabularies cuts text into words before merging, and what else its files leave unsaid.
///
/// The steps are applied in order; each cuts every piece of the one before at its matches, and the gaps between matches
/// are pieces too. They are the regular expressions of the models' own tokenizers written as scanners over code points,
/// so that the time is linear whatever the text; pre_tokenizer_test.cpp holds the expressions and compares.
struct PreTokenizer {
  std::string_view names;  ///< Values of tokenizer.ggml.pre, separated by spaces.
  std::span<const SplitStep> steps;
  bool clean_spaces = false;   ///< Decoded text may be tidied around punctuation.
  bool ignore_merges = false;  ///< A word that is a token needs no merging.
  bool add_bos = false;
  bool add_sep = false;
  bool default_bos = true;     ///< Whether the model type's default BOS id applies.
  bool spaces_marked = false;  ///< Works on text with "▁" for space and on characters, not bytes.
};

/// The pre-tokenizer called `name`; empty means "default", with a warning. Throws Error(kUnsupported) with the known
/// names.
const PreTokenizer& find_pre_tokenizer(std::string_view name);

/// Byte ends of the pieces of `text`, ascending; the last one is text.size().
std::vector<uint32_t> split_words(std::string_view text, const PreTokenizer& rules);

}  // namespace mneme
