#include "model/tokenizer/byte_map.h"

#include <array>

#include "base/utf8.h"

namespace mneme {
namespace {

constexpr bool stands_for_itself(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr auto kCodePoints = [] {
  std::array<uint16_t, 256> points{};
  uint16_t next = 0x100;
  for (uint32_t byte = 0; byte < points.size(); ++byte) {
    points[byte] = stands_for_itself(byte) ? static_cast<uint16_t>(byte) : next++;
  }
  return points;
}();

/// Index: code point; -1: stands for no byte. The last one in use is U+0143.
constexpr auto kBytes = [] {
  std::array<int16_t, 0x144> bytes{};
  for (int16_t& byte : bytes) byte = -1;
  for (size_t byte = 0; byte < kCodePoints.size(); ++byte) bytes[kCodePoints[byte]] = static_cast<int16_t>(byte);
  return bytes;
}();

}  // namespace

uint32_t byte_to_code_point(unsigned char byte) {
  return kCodePoints[byte];
}

std::optional<unsigned char> code_point_to_byte(uint32_t code_point) {
  if (code_point >= kBytes.size() || kBytes[code_point] < 0) return std::nullopt;
  return static_cast<unsigned char>(kBytes[code_point]);
}

std::string bytes_to_text(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const char byte : bytes) append_utf8(text, byte_to_code_point(static_cast<unsigned char>(byte)));
  return text;
}

std::string text_to_bytes(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  while (!text.empty()) {
    const Utf8Char c = decode_utf8(text);
    if (const auto byte = c.valid ? code_point_to_byte(c.code_point) : std::nullopt) {
      bytes.push_back(static_cast<char>(*byte));
    } else {
      bytes.append(text.substr(0, c.length));
    }
    text.remove_prefix(c.length);
  }
  return bytes;
}

}  // namespace mneme
