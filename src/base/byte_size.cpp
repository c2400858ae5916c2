#include "base/byte_size.h"

#include <cctype>
#include <charconv>
#include <cmath>

#include "base/error.h"

namespace mneme {
namespace {

/// Number with an optional unit K, M, G or T and an optional suffix "iB" or "B".
uint64_t parse_scaled(std::string_view text, std::string_view what, bool byte_suffix) {
  const auto reject = [&] {
    fail(ErrorCode::kInvalidArgument, "[parse {}] expected a number with an optional K, M, G or T, found '{}'", what, text);
  };
  double number = 0;
  const char* begin = text.data();
  const char* end = begin + text.size();
  const auto [rest, status] = std::from_chars(begin, end, number, std::chars_format::fixed);
  if (status != std::errc{} || !(number >= 0)) reject();
  std::string_view unit(rest, static_cast<size_t>(end - rest));
  int shift = 0;
  if (!unit.empty()) {
    switch (std::toupper(static_cast<unsigned char>(unit.front()))) {
      case 'K': shift = 10; break;
      case 'M': shift = 20; break;
      case 'G': shift = 30; break;
      case 'T': shift = 40; break;
      default:
        if (!byte_suffix || unit.size() != 1 || std::toupper(static_cast<unsigned char>(unit.front())) != 'B') reject();
    }
    unit.remove_prefix(1);
    if (!unit.empty() && !(byte_suffix && (unit == "B" || unit == "iB"))) reject();
  }
  const double bytes = std::ldexp(number, shift);
  if (bytes >= 9.2e18) reject();
  return static_cast<uint64_t>(std::llround(bytes));
}

}  // namespace

uint64_t parse_byte_size(std::string_view text) { return parse_scaled(text, "byte size", true); }

uint64_t parse_token_count(std::string_view text) { return parse_scaled(text, "token count", false); }

std::string format_byte_size(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes);
  int unit = -1;
  while (value >= 1023.5 && unit < 4) {
    value /= 1024;
    ++unit;
  }
  const int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f} {}", value, decimals, kUnits[unit]);
}

}  // namespace mneme
