#pragma once

#include <cstddef>

#include "model/tokenizer/pre_tokenizer.h"

namespace mneme {

// The expressions that pre-tokenizers are put together from, as scanners: each returns the end of the match that starts
// at `begin` (< end), or `begin` when there is none. In the expressions \s is White_Space, and $ and lookahead take the
// end of the piece for the end of the text.

/// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)
size_t match_gpt2(const CodePoints& text, size_t begin, size_t end);

/// CONTRACTION|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
/// with CONTRACTION = '[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]
size_t match_llama3(const CodePoints& text, size_t begin, size_t end);
/// The same with \p{N} for \p{N}{1,3}.
size_t match_qwen2(const CodePoints& text, size_t begin, size_t end);
/// match_qwen2 with [\p{L}\p{M}] for \p{L} in words and among what other runs exclude.
size_t match_qwen35(const CodePoints& text, size_t begin, size_t end);

/// P?[U]*[W]+|P?[U]+[W]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
/// with P = [^\r\n\p{L}\p{N}], U = \p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M} and W = \p{Ll}\p{Lm}\p{Lo}\p{M}
size_t match_tekken(const CodePoints& text, size_t begin, size_t end);
/// The same with an optional CONTRACTION behind a word and \p{N}{1,3}.
size_t match_gpt4o(const CodePoints& text, size_t begin, size_t end);

/// [!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
size_t match_deepseek3(const CodePoints& text, size_t begin, size_t end);

/// \p{N}, \p{N}+, \p{N}{1,3}, [0-9][0-9][0-9]
size_t match_number(const CodePoints& text, size_t begin, size_t end);
size_t match_numbers(const CodePoints& text, size_t begin, size_t end);
size_t match_up_to_three_numbers(const CodePoints& text, size_t begin, size_t end);
size_t match_three_digits(const CodePoints& text, size_t begin, size_t end);

/// [\r\n]
size_t match_line_break(const CodePoints& text, size_t begin, size_t end);
/// [^\n]+|[\n]+
size_t match_lines(const CodePoints& text, size_t begin, size_t end);

/// \s?\p{L}+, \s?\p{P}+
size_t match_space_letters(const CodePoints& text, size_t begin, size_t end);
size_t match_space_punctuation(const CodePoints& text, size_t begin, size_t end);
/// \s?[letters of scripts with case]+, by the list of deepseek-llm
size_t match_space_cased_letters(const CodePoints& text, size_t begin, size_t end);
/// \s?[!-/:-~！-／：-～‘-‟　-。]+
size_t match_space_marks(const CodePoints& text, size_t begin, size_t end);
/// [一-龥ࠀ-一가-퟿]+
size_t match_east_asian(const CodePoints& text, size_t begin, size_t end);
/// [一-龥぀-ゟ゠-ヿ]+
size_t match_han_kana(const CodePoints& text, size_t begin, size_t end);

/// [\p{P}$+<=>^~|`]+, and the same without `
size_t match_falcon_punctuation(const CodePoints& text, size_t begin, size_t end);
size_t match_default_punctuation(const CodePoints& text, size_t begin, size_t end);
/// [\p{P}!-/:-@\[-`{-~]
size_t match_one_punctuation(const CodePoints& text, size_t begin, size_t end);
///  ?[^(\s|.,!?…。，、।۔،)]+
size_t match_bloom(const CodePoints& text, size_t begin, size_t end);

/// <sentinel:[0-9]+>
size_t match_sentinel(const CodePoints& text, size_t begin, size_t end);
/// (IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z
size_t match_image_code(const CodePoints& text, size_t begin, size_t end);
/// ([\t\n]|    |  ), the longer run of spaces first
size_t match_indent(const CodePoints& text, size_t begin, size_t end);

/// \s+$ as a whole step: the run of spaces at the end of a piece becomes a piece.
void split_trailing_space(const CodePoints& text, size_t begin, size_t end, std::vector<size_t>& ends);

}  // namespace mneme
