#include "base/utf8.h"

namespace mneme {
namespace {

constexpr uint32_t kReplacement = 0xFFFD;
constexpr Utf8Char kBadByte{kReplacement, 1, false};

/// Length that the first byte promises, 0 when no character starts with it.
uint32_t promised_length(unsigned char first) {
  if (first < 0x80) return 1;
  if (first < 0xC2) return 0;
  if (first < 0xE0) return 2;
  if (first < 0xF0) return 3;
  return first < 0xF5 ? 4 : 0;
}

/// Bounds of the second byte, which exclude over-long forms, surrogates and values above U+10FFFF.
bool second_byte_fits(unsigned char first, unsigned char second) {
  switch (first) {
    case 0xE0:
      return second >= 0xA0 && second <= 0xBF;
    case 0xED:
      return second >= 0x80 && second <= 0x9F;
    case 0xF0:
      return second >= 0x90 && second <= 0xBF;
    case 0xF4:
      return second >= 0x80 && second <= 0x8F;
    default:
      return second >= 0x80 && second <= 0xBF;
  }
}

}  // namespace

Utf8Char decode_utf8(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  const uint32_t length = promised_length(first);
  if (length == 1) return {first, 1, true};
  if (length == 0 || text.size() < length || !second_byte_fits(first, byte(1))) return kBadByte;
  uint32_t code_point = first & (0x7Fu >> length);
  for (uint32_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return kBadByte;
    code_point = (code_point << 6) | (byte(i) & 0x3Fu);
  }
  return {code_point, length, true};
}

void append_utf8(std::string& out, uint32_t code_point) {
  const auto put = [&](uint32_t value) { out.push_back(static_cast<char>(value)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | (code_point >> 6));
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | (code_point >> 12));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | (code_point >> 18));
    put(0x80 | ((code_point >> 12) & 0x3F));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

std::vector<uint32_t> utf8_to_code_points(std::string_view text) {
  std::vector<uint32_t> out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Char c = decode_utf8(text);
    out.push_back(c.code_point);
    text.remove_prefix(c.length);
  }
  return out;
}

bool is_valid_utf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Char c = decode_utf8(text);
    if (!c.valid) return false;
    text.remove_prefix(c.length);
  }
  return true;
}

size_t incomplete_utf8_tail(std::string_view text) {
  for (size_t n = 1; n <= 3 && n <= text.size(); ++n) {
    const auto first = static_cast<unsigned char>(text[text.size() - n]);
    if ((first & 0xC0) == 0x80) continue;
    if (promised_length(first) <= n) return 0;
    return n == 1 || second_byte_fits(first, static_cast<unsigned char>(text[text.size() - n + 1])) ? n : 0;
  }
  return 0;
}

std::string shortened(std::string_view text, size_t most) {
  if (text.size() <= most) return std::string(text);
  text = text.substr(0, most);
  text.remove_suffix(incomplete_utf8_tail(text));
  return std::string(text) + "...";
}

std::string Utf8Stream::push(std::string_view bytes) {
  pending_.append(bytes);
  std::string_view ready = pending_;
  ready.remove_suffix(incomplete_utf8_tail(ready));
  std::string out;
  out.reserve(ready.size());
  const size_t consumed = ready.size();
  while (!ready.empty()) {
    const Utf8Char c = decode_utf8(ready);
    append_utf8(out, c.code_point);
    ready.remove_prefix(c.length);
  }
  pending_.erase(0, consumed);
  return out;
}

std::string Utf8Stream::finish() {
  std::string out;
  if (!pending_.empty()) append_utf8(out, kReplacement);
  pending_.clear();
  return out;
}

}  // namespace mneme
