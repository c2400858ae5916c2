#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <optional>
#include <unordered_map>

#include "model/chat/jinja/filters.h"
#include "model/chat/jinja/operators.h"
#include "model/chat/jinja/text_ops.h"

namespace mneme::jinja {
namespace {

/// The text of a number without white space around and without the underscores that Python allows between digits;
/// nothing when an underscore stands elsewhere.
std::optional<std::string> digits_of(Runtime& runtime, const Text& text) {
  const std::string stripped(strip(runtime, text, nullptr, true, true).view());
  std::string digits;
  for (size_t i = 0; i < stripped.size(); ++i) {
    if (stripped[i] != '_') {
      digits += stripped[i];
    } else if (i == 0 || i + 1 == stripped.size() || stripped[i - 1] == '_' || stripped[i + 1] == '_') {
      return std::nullopt;
    }
  }
  return digits;
}

int digit_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'z') return c - 'a' + 10;
  return c >= 'A' && c <= 'Z' ? c - 'A' + 10 : 99;
}

std::optional<Int> parse_int(std::string_view text, int base) {
  const bool negative = !text.empty() && text[0] == '-';
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  const std::string_view prefix = text.substr(0, 2);
  const bool prefixed = (base == 16 && (prefix == "0x" || prefix == "0X")) ||
                        (base == 8 && (prefix == "0o" || prefix == "0O")) ||
                        (base == 2 && (prefix == "0b" || prefix == "0B"));
  if (prefixed) text.remove_prefix(2);
  if (text.empty()) return std::nullopt;
  Int number = 0;
  for (const char c : text) {
    const int digit = digit_value(c);
    if (digit >= base || __builtin_mul_overflow(number, Int{base}, &number) ||
        __builtin_add_overflow(number, Int{digit}, &number)) {
      return std::nullopt;
    }
  }
  return negative ? -number : number;
}

std::optional<double> parse_float(std::string_view text) {
  if (!text.empty() && text[0] == '+') text.remove_prefix(1);
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::optional<Int> truncated(double number) {
  constexpr double kLimit = 1.0e38;  // Below 2^127.
  if (!(std::abs(number) < kLimit)) return std::nullopt;
  return static_cast<Int>(number);
}

Value abs_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  BoundArgs(runtime, "abs", args, {});
  if (!value.is_number()) runtime.fail("abs needs a number, got {}", value.type_name());
  if (value.is_float()) return std::abs(value.as_double());
  return value.as_int() < 0 ? negate(runtime, value) : Value(value.as_int());
}

Value int_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  const BoundArgs bound(runtime, "int", args, {"default", "base"});
  const Value fallback = bound.value_or(0, 0);
  const Int base = bound.int_or(1, 10);
  if (base < 2 || base > 36) runtime.fail("int: base {} is not between 2 and 36", base);
  if (value.is_undefined()) runtime.fail_undefined(value.as_undefined());
  if (value.is_integral()) return value.as_int();
  std::optional<double> number;
  if (value.is_float()) number = value.as_double();
  if (value.is_string()) {
    const auto digits = digits_of(runtime, *value.as_text());
    if (!digits) return fallback;
    if (const auto whole = parse_int(*digits, static_cast<int>(base))) return *whole;
    number = parse_float(*digits);
  }
  const auto whole = number ? truncated(*number) : std::nullopt;
  return whole ? Value(*whole) : fallback;
}

Value float_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  const BoundArgs bound(runtime, "float", args, {"default"});
  const Value fallback = bound.value_or(0, 0.0);
  if (value.is_undefined()) runtime.fail_undefined(value.as_undefined());
  if (value.is_number()) return value.as_double();
  if (!value.is_string()) return fallback;
  const auto digits = digits_of(runtime, *value.as_text());
  const auto number = digits ? parse_float(*digits) : std::nullopt;
  return number ? Value(*number) : fallback;
}

/// Rounds to `precision` decimals as Python does: by the exact binary value, halves to even.
double rounded(double number, int precision) {
  if (!std::isfinite(number)) return number;
  if (precision < 0) {
    const double scale = std::pow(10.0, -precision);
    return std::isfinite(scale) ? std::nearbyint(number / scale) * scale : 0.0;
  }
  std::array<char, 700> buffer;  // The longest double has 309 digits before the point.
  const int length = std::snprintf(buffer.data(), buffer.size(), "%.*f", precision, number);
  double result = number;
  std::from_chars(buffer.data(), buffer.data() + length, result);
  return result;
}

Value round_filter(Runtime& runtime, const Value& value, const CallArgs& args) {
  const BoundArgs bound(runtime, "round", args, {"precision", "method"});
  if (!value.is_number()) runtime.fail("round needs a number, got {}", value.type_name());
  constexpr Int kMostDigits = 320;
  const int precision = static_cast<int>(std::clamp(bound.int_or(0, 0), -kMostDigits, kMostDigits));
  const std::string_view method = bound.has(1) ? bound.text(1)->view() : "common";
  if (method == "common") {
    if (value.is_integral() && precision >= 0) return value.as_int();
    const double result = rounded(value.as_double(), precision);
    const auto whole = value.is_integral() ? truncated(result) : std::nullopt;
    return whole ? Value(*whole) : Value(result);
  }
  if (method != "ceil" && method != "floor") runtime.fail("round: method is common, ceil or floor, got '{}'", method);
  const double scale = std::pow(10.0, precision);
  const double scaled = value.as_double() * scale;
  const double whole = method == "ceil" ? std::ceil(scaled) : std::floor(scaled);
  return whole == 0 ? 0.0 : whole / scale;  // Never -0.0: the step between is a whole number in Python.
}

const std::unordered_map<std::string_view, Filter> kFilters = {
    {"abs", abs_filter},
    {"float", float_filter},
    {"int", int_filter},
    {"round", round_filter},
};

}  // namespace

Filter find_number_filter(std::string_view name) {
  const auto found = kFilters.find(name);
  return found == kFilters.end() ? nullptr : found->second;
}

}  // namespace mneme::jinja
