#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mneme {

/// SentencePiece's compiled normaliser (precompiled_charsmap): replaces the longest known string at each place.
///
/// Layout: u32 size in bytes of a double array, its u32 entries (little-endian), then replacements that end in NUL. An
/// entry e has base (e >> 10) << ((e & 512) >> 6), label e & 0x800000FF and, as a leaf's value, e & 0x7FFFFFFF: an
/// offset into the replacements. The blob comes from a file: sizes are checked here, indices at each step.
class Charsmap {
 public:
  Charsmap() = default;
  /// An empty blob replaces nothing. Throws Error(kCorruptData).
  explicit Charsmap(std::string_view blob);

  /// Appends the normal form of `text`; bytes that form no character become U+FFFD. Throws Error(kCorruptData) when the
  /// array points outside itself or the result is out of proportion to the text.
  void normalize(std::string_view text, std::string& out) const;

  size_t memory_bytes() const { return entries_.capacity() * sizeof(uint32_t) + replacements_.capacity(); }

 private:
  /// The longest match at the start of a text; length 0 for none.
  struct Match {
    size_t length;
    std::string_view replacement;
  };
  Match longest_match(std::string_view text) const;
  uint32_t entry(size_t index) const;

  std::vector<uint32_t> entries_;
  std::string replacements_;  ///< Ends with NUL unless empty.
};

}  // namespace mneme
