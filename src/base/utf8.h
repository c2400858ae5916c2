#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mneme {

/// One decoded character: its code point and the bytes it took. `valid` is false for a byte that starts no well-formed
/// sequence (then length is 1 and code_point is U+FFFD).
struct Utf8Char {
  uint32_t code_point;
  uint32_t length;
  bool valid;
};

/// Decodes the character at `text[0]` (text not empty): shortest form only, no surrogates, at most U+10FFFF.
Utf8Char decode_utf8(std::string_view text);

/// Appends the UTF-8 form of a code point.
void append_utf8(std::string& out, uint32_t code_point);

/// Whole text to code points; each bad byte becomes U+FFFD.
std::vector<uint32_t> utf8_to_code_points(std::string_view text);

bool is_valid_utf8(std::string_view text);

/// Number of bytes at the end of `text` that begin a character which is not complete yet (0 to 3).
size_t incomplete_utf8_tail(std::string_view text);

/// `text`, or its beginning of at most `most` bytes and "..." when it is longer; cut between characters.
std::string shortened(std::string_view text, size_t most);

/// Collects bytes and gives back only complete characters, for streaming output. Bytes that can never become a
/// character come out as U+FFFD.
class Utf8Stream {
 public:
  /// Takes more bytes and returns the text that is complete now.
  std::string push(std::string_view bytes);
  /// What is left at the end: U+FFFD when a character stayed incomplete.
  std::string finish();

 private:
  std::string pending_;
};

}  // namespace mneme
