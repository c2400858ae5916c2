#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mneme {

class Metadata;

using TokenId = int32_t;

/// What a token is. The values are those of tokenizer.ggml.token_type (and of SentencePiece) and never change.
enum class TokenKind : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,      ///< Means something to the model and has no text of its own.
  kUserDefined = 4,  ///< Always found in text before anything else, and rendered as it is.
  kUnused = 5,
  kByte = 6,  ///< "<0x0A>": one byte.
};

/// Ids of the tokens that have a role.
struct SpecialTokens {
  std::optional<TokenId> bos, eos, eot, eom, unk, sep, pad, cls, mask;
  /// Fill-in-the-middle: before the hole, after it, the hole itself, padding, repository name, file border.
  std::optional<TokenId> fim_prefix, fim_suffix, fim_middle, fim_pad, fim_repo, fim_file;
};

/// The data that a tokenizer is made from, under the names of `tokenizer.ggml.*`: as it stands in a model file, or as
/// training made it. Tokenizer::create() validates it.
struct Vocabulary {
  std::string model;                ///< "llama", "gpt2", "gemma4", "bert" or "t5".
  std::string pre;                  ///< Pre-tokenizer of byte-pair encodings.
  std::string name;                 ///< general.name; decides the white-space rules of a few families.
  std::vector<std::string> tokens;  ///< [V] in the tokenizer's own escaping.
  std::vector<float> scores;        ///< [V] or empty.
  std::vector<TokenKind> kinds;     ///< [V] or empty: all normal.
  std::vector<std::string> merges;  ///< "left right", best first.
  std::string charsmap;             ///< precompiled_charsmap, empty for none.
  SpecialTokens special;            ///< Those that are given; the rest has defaults.

  // Nothing given: the default of the model or pre-tokenizer.
  std::optional<bool> add_bos, add_eos, add_sep, add_space_prefix, remove_extra_whitespaces;
  std::optional<bool> lowercase, strip_accents;  ///< WordPiece normaliser.
};

/// Reads tokenizer.ggml.* and checks types and lengths. Throws Error that names the key.
Vocabulary read_vocabulary(const Metadata& metadata);

}  // namespace mneme
