#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "model/tokenizer/vocabulary.h"

namespace mneme {

/// One tokenization algorithm. Immutable; encode() may run on many threads at once.
class TextEncoder {
 public:
  virtual ~TextEncoder() = default;

  /// Appends the tokens of `raw`, which is text between two special tokens or borders of the whole; not empty, any
  /// bytes, less than 2^30 of them. Returns the number of bytes that the vocabulary has no token for and that were left
  /// out.
  virtual size_t encode(std::string_view raw, std::vector<TokenId>& out) const = 0;
  virtual size_t memory_bytes() const = 0;
};

/// "▁" (U+2581), which stands for a space inside tokens.
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

}  // namespace mneme
