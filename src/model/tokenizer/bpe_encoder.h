#pragma once

#include <array>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/tokenizer/merge_queue.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/text_encoder.h"
#include "model/tokenizer/token_table.h"

namespace mneme {

/// The merges of a byte-pair vocabulary: a pair of symbols to its rank and to the symbol it becomes.
///
/// A symbol is a token id, or a number from table.size() on for a text that only merges mention. Open addressing with
/// 16 bytes a slot, since this is the largest table of a tokenizer.
class MergeTable {
 public:
  /// Throws Error(kCorruptData) for a merge that is not two texts with a space between them.
  MergeTable(const TokenTable& table, const std::vector<std::string>& merges);

  std::optional<Merge> find(int32_t left, int32_t right) const;
  /// The symbol of a text, -1 when neither tokens nor merges know it.
  int32_t symbol(std::string_view text) const;
  size_t memory_bytes() const;

 private:
  struct Slot {
    int32_t left = -1, right = -1;
    uint32_t rank = 0;
    int32_t merged = -1;
  };
  struct TextHash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };

  int32_t symbol_or_new(std::string_view text);
  size_t home(int32_t left, int32_t right) const;

  const TokenTable& table_;
  std::vector<Slot> slots_;
  std::unordered_map<std::string, int32_t, TextHash, std::equal_to<>> extra_;  ///< Texts that are no token.
};

/// Byte-pair encoding ("gpt2", "gemma4"): the pre-tokenizer cuts text into words, each of which merges by rank.
///
/// Words are bytes written as printable characters (byte_map.h), or, with `spaces_marked`, characters of text whose
/// spaces are "▁", with "<0xXX>" tokens for what is no token. Bytes that are no valid UTF-8 split words as U+FFFD would
/// and are encoded as themselves, so decoding gives back any input as long as each byte has a token. Many vocabularies
/// have none for the bytes that UTF-8 never uses; those become U+FFFD.
class BpeEncoder final : public TextEncoder {
 public:
  /// `table` and `rules` outlive the encoder.
  BpeEncoder(const TokenTable& table, const PreTokenizer& rules, const std::vector<std::string>& merges);

  size_t encode(std::string_view raw, std::vector<TokenId>& out) const override;
  size_t memory_bytes() const override { return merges_.memory_bytes(); }

 private:
  /// `text` with U+FFFD for the bytes that form no character and have no token.
  std::string replace_bytes_without_token(std::string_view text) const;
  /// Whether the whole word is a token that needs no merging; appends it then.
  bool append_whole(std::string_view word, std::vector<TokenId>& out) const;
  void add_symbols(std::string_view word, MergeQueue& queue) const;
  size_t append_symbol(const MergeSymbol& symbol, std::string_view word, std::vector<TokenId>& out) const;
  /// Whether a symbol is a token whose text is spelled as words are.
  bool is_token(int32_t symbol) const;
  bool has_token(unsigned char byte) const;

  const TokenTable& table_;
  const PreTokenizer& rules_;
  MergeTable merges_;
  std::array<int32_t, 256> byte_symbols_;  ///< Of single bytes: the symbol, or the "<0xXX>" token with spaces_marked.
  bool all_bytes_ = true;                  ///< Every byte has a token.
};

}  // namespace mneme
