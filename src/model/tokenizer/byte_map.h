#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mneme {

/// The printable code point that byte-level vocabularies write for a byte: itself for 21-7E, A1-AC and AE-FF, U+0100
/// and on for the other 68 in ascending order (space is U+0120 "Ġ", newline U+010A "Ċ").
uint32_t byte_to_code_point(unsigned char byte);

/// The inverse; nothing for a code point that stands for no byte.
std::optional<unsigned char> code_point_to_byte(uint32_t code_point);

/// Bytes as such text, and back. Code points that stand for no byte stay as they are.
std::string bytes_to_text(std::string_view bytes);
std::string text_to_bytes(std::string_view text);

}  // namespace mneme
