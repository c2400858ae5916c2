#pragma once

#include <array>
#include <string>

#include "model/tokenizer/merge_queue.h"
#include "model/tokenizer/text_encoder.h"
#include "model/tokenizer/token_table.h"

namespace mneme {

/// SentencePiece's byte-pair model ("llama"): characters merge into the piece with the highest score; what is no piece
/// in the end falls back to byte tokens.
///
/// Text with add_space_prefix gets one space in front, spaces become "▁". Pieces of kind unused take part in merging
/// and are taken apart again at the end, as SentencePiece does. Bytes that form no character stand alone and become
/// byte tokens, so any input comes back, except that a literal "▁" comes back as a space.
class SpmEncoder final : public TextEncoder {
 public:
  /// `table` outlives the encoder. `unk` stands for bytes without a token.
  SpmEncoder(const TokenTable& table, bool add_space_prefix, std::optional<TokenId> unk);

  size_t encode(std::string_view raw, std::vector<TokenId>& out) const override;
  size_t memory_bytes() const override { return 0; }

 private:
  const TokenTable& table_;
  bool add_space_prefix_;
  std::array<TokenId, 256> byte_tokens_;  ///< -1: none.
};

/// Ids of the byte tokens "<0x00>" to "<0xFF>"; for a missing one the token that is just this byte, then `unk`, then
/// -1.
std::array<TokenId, 256> find_byte_tokens(const TokenTable& table, std::optional<TokenId> unk);

/// `text` with each space replaced by "▁", after one more if `prefix`.
std::string mark_spaces(std::string_view text, bool prefix);

}  // namespace mneme
