#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/tokenizer/vocabulary.h"

namespace mneme {

/// The tokens of a vocabulary: text, kind and score by id, and id by text.
///
/// All texts lie in one block. Immutable once the tokenizer is built; set_kind() serves the building.
class TokenTable {
 public:
  /// Checks lengths, replaces an empty text i by "[EMPTY_i]" and gives absent kinds and scores their defaults. Throws
  /// Error(kCorruptData) for a text that occurs twice, a byte token that is not "<0xXX>" or a score that is no number.
  explicit TokenTable(const Vocabulary& vocabulary);

  size_t size() const { return kinds_.size(); }
  bool contains(TokenId id) const { return id >= 0 && static_cast<size_t>(id) < size(); }
  std::string_view text(TokenId id) const {
    return std::string_view(texts_).substr(begins_[id], begins_[id + 1] - begins_[id]);
  }
  TokenKind kind(TokenId id) const { return kinds_[id]; }
  float score(TokenId id) const { return scores_.empty() ? 0.0f : scores_[id]; }
  void set_kind(TokenId id, TokenKind kind) { kinds_[id] = kind; }

  std::optional<TokenId> find(std::string_view text) const;
  /// As find(), but only a token that plain text may become: control, unknown and byte tokens never match their
  /// spelling.
  std::optional<TokenId> find_plain(std::string_view text) const {
    const auto id = find(text);
    return id && is_plain(*id) ? id : std::nullopt;
  }
  bool is_plain(TokenId id) const {
    const TokenKind k = kind(id);
    return k == TokenKind::kNormal || k == TokenKind::kUserDefined || k == TokenKind::kUnused;
  }
  /// The byte that a byte token stands for.
  unsigned char byte_value(TokenId id) const;
  size_t max_text_bytes() const { return max_text_bytes_; }
  size_t memory_bytes() const;

 private:
  struct Slot {
    uint32_t tag = 0;  ///< Upper half of the hash, so that most comparisons of other texts are saved.
    TokenId id = -1;   ///< -1: free.
  };

  void build_index();

  std::string texts_;
  std::vector<uint32_t> begins_;  ///< [V + 1] offsets into texts_.
  std::vector<TokenKind> kinds_;  ///< [V]
  std::vector<float> scores_;     ///< [V] or empty.
  std::vector<Slot> slots_;       ///< Open addressing; the size is a power of two, at least 1.5 V.
  size_t max_text_bytes_ = 0;
};

/// Name of byte b's token: "<0x0A>".
std::string byte_token_text(unsigned char byte);

}  // namespace mneme
