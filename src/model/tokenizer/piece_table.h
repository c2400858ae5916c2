#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/tokenizer/token_table.h"

namespace mneme {

/// How the texts of a vocabulary spell bytes.
enum class Spelling : uint8_t {
  kMarkedSpaces,  ///< "▁" is a space.
  kMappedBytes,   ///< Each character is a byte (byte_map.h).
};

/// The bytes that each token stands for, made once so that decoding copies and constrained sampling can look at all of
/// them. Byte tokens are their byte, control and unknown tokens their own text, the others are spelled; user-defined
/// ones are so only where spaces are marked.
class PieceTable {
 public:
  PieceTable() = default;
  PieceTable(const TokenTable& table, Spelling spelling);

  std::string_view piece(TokenId id) const {
    return std::string_view(bytes_).substr(begins_[id], begins_[id + 1] - begins_[id]);
  }
  size_t memory_bytes() const { return bytes_.capacity() + begins_.capacity() * sizeof(uint32_t); }

 private:
  std::string bytes_;
  std::vector<uint32_t> begins_;  ///< [V + 1]
};

/// Removes the spaces that some tokenizers leave before punctuation and around apostrophes: one before ? ! . and ,
/// those around a lone ', and one before 's 'm 're and 've. Lossy: not for text that will be compared or tokenized
/// again.
std::string clean_spaces(std::string_view text);

}  // namespace mneme
