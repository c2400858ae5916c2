#pragma once

#include <string>
#include <vector>

#include "model/tokenizer/prefix_tree.h"
#include "model/tokenizer/text_encoder.h"
#include "model/tokenizer/token_table.h"

namespace mneme {

/// How WordPiece text is normalised: BERT's uncased models do both.
struct WordPieceRules {
  bool lowercase = true;
  bool strip_accents = true;
};

/// The words of a text: decomposed canonically without the combining marks (with strip_accents), lower-cased, without
/// control characters; split at white space, each punctuation character, ASCII symbol and CJK ideograph a word of its
/// own. Empty words do not occur.
std::vector<std::string> split_word_piece_words(std::string_view text, const WordPieceRules& rules);

/// WordPiece ("bert"): a word is covered from the left by the longest pieces; if that fails anywhere it is one unknown
/// token.
///
/// Vocabularies of model files write "▁" before pieces that begin a word and nothing before those that continue it.
class WordPieceEncoder final : public TextEncoder {
 public:
  WordPieceEncoder(const TokenTable& table, WordPieceRules rules, std::optional<TokenId> unk);

  size_t encode(std::string_view raw, std::vector<TokenId>& out) const override;
  size_t memory_bytes() const override { return tree_.memory_bytes(); }

 private:
  /// Appends the pieces of a marked word; false, and nothing appended, when no pieces cover it.
  bool append_word(std::string_view word, std::vector<TokenId>& out) const;

  WordPieceRules rules_;
  std::optional<TokenId> unk_;
  PrefixTree tree_;  ///< Text to id, of tokens that plain text may become.
};

}  // namespace mneme
