#pragma once

#include <string>

#include "model/tokenizer/charsmap.h"
#include "model/tokenizer/prefix_tree.h"
#include "model/tokenizer/text_encoder.h"
#include "model/tokenizer/token_table.h"

namespace mneme {

struct UnigramRules {
  bool add_space_prefix = false;
  bool remove_extra_whitespaces = false;
};

/// SentencePiece's unigram model ("t5"): of all ways to cover the text with pieces, the one with the greatest sum of
/// scores, found by Viterbi's algorithm over byte positions.
///
/// Text is normalised first (charsmap.h), spaces become "▁". A character that no piece covers is unknown at the lowest
/// score minus 10; neighbouring unknown characters are one token. Sums are doubles, so that long texts keep the
/// precision of short ones. It has no byte fallback and does not treat white space as a suffix.
class UnigramEncoder final : public TextEncoder {
 public:
  /// `table` outlives the encoder.
  UnigramEncoder(const TokenTable& table, UnigramRules rules, std::string_view charsmap, std::optional<TokenId> unk);

  size_t encode(std::string_view raw, std::vector<TokenId>& out) const override;
  size_t memory_bytes() const override { return tree_.memory_bytes() + charsmap_.memory_bytes(); }

  /// The text that pieces are looked for in.
  std::string normalize(std::string_view raw) const;

 private:
  const TokenTable& table_;
  UnigramRules rules_;
  Charsmap charsmap_;
  std::optional<TokenId> unk_;
  float unknown_score_ = 0;
  PrefixTree tree_;  ///< Text to id, of tokens that plain text may become.
};

}  // namespace mneme
