#include "model/chat/jinja/string_format.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <optional>

#include "model/chat/jinja/print.h"

namespace mneme::jinja {
namespace {

constexpr size_t kMaxWidth = 10'000;
constexpr size_t kMaxPrecision = 100;

/// How one value is laid out, common to both notations.
struct FieldSpec {
  char fill = ' ';
  char align = 0;  ///< '<', '>', '^', '=' (padding after the sign), or 0 for the type's own.
  char sign = '-';
  bool grouped = false;  ///< Commas between thousands.
  size_t width = 0;
  std::optional<size_t> precision;
  char type = 0;
};

void pad_with_zeros(FieldSpec& spec) {
  spec.fill = '0';
  spec.align = '=';
}

size_t read_number(Runtime& runtime, std::string_view text, size_t& at, size_t most) {
  size_t number = 0;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') {
    number = number * 10 + static_cast<size_t>(text[at++] - '0');
    if (number > most) runtime.fail("format: a width or precision above {}", most);
  }
  return number;
}

std::string grouped_digits(std::string digits) {
  const size_t whole = std::min(digits.find('.'), digits.size());
  for (size_t i = whole; i > 3; i -= 3) digits.insert(i - 3, 1, ',');
  return digits;
}

std::string printf_float(double number, size_t precision, char type) {
  const std::array<char, 6> pattern = {'%', '.', '*', type, 0, 0};
  std::array<char, 512> buffer;
  const int length = std::snprintf(buffer.data(), buffer.size(), pattern.data(), static_cast<int>(precision), number);
  return {buffer.data(), std::min(static_cast<size_t>(length), buffer.size() - 1)};
}

/// Sign and digits of a number, without padding.
std::string number_body(Runtime& runtime, const Value& value, const FieldSpec& spec, bool& negative) {
  if (!value.is_number()) runtime.fail("format: '{}' needs a number, got {}", spec.type, value.type_name());
  const bool integral_type = std::string_view("bdiuoxX").find(spec.type) != std::string_view::npos;
  if (integral_type) {
    if (value.is_float() && std::string_view("boxX").find(spec.type) != std::string_view::npos) {
      runtime.fail("format: '{}' needs a whole number, got float", spec.type);
    }
    if (value.is_float() && !(std::abs(value.as_double()) < 1e18)) runtime.fail("format: number out of range");
    const Int number = value.is_float() ? static_cast<Int>(value.as_double()) : value.as_int();
    negative = number < 0;
    __extension__ typedef unsigned __int128 Magnitude;
    const Magnitude magnitude =
        negative ? Magnitude{0} - static_cast<Magnitude>(number) : static_cast<Magnitude>(number);
    switch (spec.type) {
      case 'b':
        return fmt::format("{:b}", magnitude);
      case 'o':
        return fmt::format("{:o}", magnitude);
      case 'x':
        return fmt::format("{:x}", magnitude);
      case 'X':
        return fmt::format("{:X}", magnitude);
      default:
        return fmt::format("{}", magnitude);
    }
  }
  double number = value.as_double();
  negative = std::signbit(number);
  number = std::abs(number);
  if (spec.type == '%') return printf_float(number * 100, spec.precision.value_or(6), 'f') + "%";
  if (spec.type != 0) return printf_float(number, spec.precision.value_or(6), spec.type);
  // Without a type: as "g", but recognisable as a float.
  std::string text = printf_float(number, spec.precision.value_or(6), 'g');
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

void append_padded(Runtime& runtime, Text& out, const Text& sign, const Text& body, const FieldSpec& spec, char align) {
  const size_t length = count_chars(sign.view()) + count_chars(body.view());
  const size_t missing = spec.width > length ? spec.width - length : 0;
  runtime.charge(missing + body.cost() + sign.cost());
  size_t before = 0;
  if (align == '>') before = missing;
  if (align == '^') before = missing / 2;
  out.append(std::string(before, spec.fill), false);
  out.append(sign);
  if (align == '=') out.append(std::string(missing, spec.fill), false);
  out.append(body);
  if (align == '<' || align == '^') out.append(std::string(missing - before, spec.fill), false);
}

void append_number(Runtime& runtime, Text& out, const Value& value, const FieldSpec& spec) {
  bool negative = false;
  std::string body = number_body(runtime, value, spec, negative);
  if (spec.grouped) body = grouped_digits(body);
  const bool has_sign = negative || spec.sign != '-';
  const Text sign(std::string(has_sign ? 1 : 0, negative ? '-' : spec.sign), false);
  append_padded(runtime, out, sign, Text(std::move(body), false), spec, spec.align != 0 ? spec.align : '>');
}

void append_text_field(Runtime& runtime, Text& out, const Text& text, const FieldSpec& spec, char natural_align) {
  const size_t end = spec.precision ? char_offset(text.view(), *spec.precision) : text.size();
  const char align = spec.align == 0 || spec.align == '=' ? natural_align : spec.align;
  append_padded(runtime, out, Text(), text.slice(0, end), spec, align);
}

/// Reads the arguments of `%` one by one or by name.
class PercentArguments {
 public:
  PercentArguments(Runtime& runtime, const Value& arguments) : runtime_(runtime), arguments_(arguments) {}

  const Value& next() {
    if (arguments_.is_list() && arguments_.as_list().is_tuple) {
      const auto& items = arguments_.as_list().items;
      if (used_ >= items.size()) runtime_.fail("format: not enough arguments");
      return items[used_++];
    }
    if (used_++ > 0) runtime_.fail("format: not enough arguments");
    return arguments_;
  }
  const Value& named(std::string_view name) {
    if (!arguments_.is_dict()) runtime_.fail("format: '%({})' needs a mapping", name);
    const Value* value = arguments_.as_dict().find(name);
    if (value == nullptr) runtime_.fail("format: no argument '{}'", name);
    used_by_name_ = true;
    return *value;
  }
  void check_all_used() const {
    const bool tuple = arguments_.is_list() && arguments_.as_list().is_tuple;
    const size_t given = tuple ? arguments_.as_list().items.size() : 1;
    if (used_ < given && !used_by_name_ && !arguments_.is_dict()) {
      runtime_.fail("format: more arguments than places for them");
    }
  }

 private:
  Runtime& runtime_;
  const Value& arguments_;
  size_t used_ = 0;
  bool used_by_name_ = false;
};

FieldSpec percent_spec(Runtime& runtime, std::string_view format, size_t& at) {
  FieldSpec spec;
  for (; at < format.size() && std::string_view("-+ 0#").find(format[at]) != std::string_view::npos; ++at) {
    if (format[at] == '-') spec.align = '<';
    if (format[at] == '+' || format[at] == ' ') spec.sign = format[at];
    if (format[at] == '0' && spec.align != '<') pad_with_zeros(spec);
  }
  if (spec.align == '<') spec.fill = ' ';
  spec.width = read_number(runtime, format, at, kMaxWidth);
  if (at < format.size() && format[at] == '.') spec.precision = read_number(runtime, format, ++at, kMaxPrecision);
  while (at < format.size() && std::string_view("hlL").find(format[at]) != std::string_view::npos) ++at;
  if (at >= format.size()) runtime.fail("format: '%' at the end");
  spec.type = format[at++];
  return spec;
}

FieldSpec brace_spec(Runtime& runtime, std::string_view text) {
  constexpr std::string_view kAligns = "<>^=";
  FieldSpec spec;
  size_t at = 0;
  if (text.size() > 1 && kAligns.find(text[1]) != kAligns.npos) {
    spec.fill = text[0];
    spec.align = text[1];
    at = 2;
  } else if (!text.empty() && kAligns.find(text[0]) != kAligns.npos) {
    spec.align = text[at++];
  }
  if (at < text.size() && std::string_view("+- ").find(text[at]) != std::string_view::npos) spec.sign = text[at++];
  if (at < text.size() && text[at] == '0' && spec.align == 0) pad_with_zeros(spec);
  spec.width = read_number(runtime, text, at, kMaxWidth);
  spec.grouped = at < text.size() && text[at] == ',';
  if (spec.grouped) ++at;
  if (at < text.size() && text[at] == '.') spec.precision = read_number(runtime, text, ++at, kMaxPrecision);
  if (at < text.size()) spec.type = text[at++];
  constexpr std::string_view kTypes = "sbdoxXeEfFgG%";
  if (at != text.size() || (spec.type != 0 && kTypes.find(spec.type) == kTypes.npos)) {
    runtime.fail_unsupported("format: specification '{}'", text);
  }
  return spec;
}

void append_brace_field(Runtime& runtime, Text& out, const Value& value, char conversion, std::string_view spec_text) {
  FieldSpec spec = brace_spec(runtime, spec_text);
  // A truth value is a number as soon as anything is specified.
  const bool as_text =
      conversion != 0 || spec.type == 's' || !value.is_number() || (value.is_bool() && spec_text.empty());
  if (as_text) {
    if (spec.type != 0 && spec.type != 's') runtime.fail("format: '{}' needs a number", spec.type);
    const Text text = conversion == 'r' ? repr(runtime, value) : *to_text(runtime, value);
    append_text_field(runtime, out, text, spec, '<');
  } else if (spec.type == 0 && value.is_float() && !spec.precision) {
    append_text_field(runtime, out, *to_text(runtime, value), spec, '>');
  } else {
    if (spec.type == 0 && value.is_integral()) spec.type = 'd';
    append_number(runtime, out, value, spec);
  }
}

const Value& brace_argument(Runtime& runtime, std::string_view field, const CallArgs& args, size_t& next) {
  if (field.empty() || (field[0] >= '0' && field[0] <= '9')) {
    size_t at = 0;
    const size_t index = field.empty() ? next++ : read_number(runtime, field, at, args.positional.size());
    if (index >= args.positional.size() || at != field.size()) runtime.fail("format: no argument for '{{{}}}'", field);
    return args.positional[index];
  }
  for (const auto& [name, value] : args.named) {
    if (name == field) return value;
  }
  runtime.fail("format: no argument '{}'", field);
}

}  // namespace

Text percent_format(Runtime& runtime, const Text& format, const Value& arguments) {
  runtime.charge(format.cost());
  PercentArguments values(runtime, arguments);
  const std::string_view pattern = format.view();
  Text out;
  for (size_t at = 0; at < pattern.size();) {
    const size_t percent = std::min(pattern.find('%', at), pattern.size());
    out.append(format, at, percent);
    at = percent + 1;
    if (percent == pattern.size()) break;
    if (at < pattern.size() && pattern[at] == '%') {
      out.append(format, at, at + 1);
      ++at;
      continue;
    }
    const Value* value = nullptr;
    if (at < pattern.size() && pattern[at] == '(') {
      const size_t close = pattern.find(')', at);
      if (close == pattern.npos) runtime.fail("format: '%(' without ')'");
      value = &values.named(pattern.substr(at + 1, close - at - 1));
      at = close + 1;
    }
    const FieldSpec spec = percent_spec(runtime, pattern, at);
    if (value == nullptr) value = &values.next();
    if (spec.type == 's' || spec.type == 'r') {
      const Text text = spec.type == 's' ? *to_text(runtime, *value) : repr(runtime, *value);
      append_text_field(runtime, out, text, spec, '>');
    } else if (std::string_view("diuoxXeEfFgG").find(spec.type) != std::string_view::npos) {
      append_number(runtime, out, *value, spec);
    } else {
      runtime.fail_unsupported("format: conversion '%{}'", spec.type);
    }
  }
  values.check_all_used();
  return out;
}

Text brace_format(Runtime& runtime, const Text& format, const CallArgs& args) {
  runtime.charge(format.cost());
  const std::string_view pattern = format.view();
  size_t next = 0;
  Text out;
  for (size_t at = 0; at < pattern.size();) {
    const size_t brace = std::min(pattern.find_first_of("{}", at), pattern.size());
    out.append(format, at, brace);
    if (brace == pattern.size()) break;
    if (brace + 1 < pattern.size() && pattern[brace + 1] == pattern[brace]) {
      out.append(format, brace, brace + 1);
      at = brace + 2;
      continue;
    }
    const size_t close = pattern.find('}', brace);
    if (pattern[brace] == '}' || close == pattern.npos) runtime.fail("format: single brace in '{}'", pattern);
    std::string_view field = pattern.substr(brace + 1, close - brace - 1);
    const size_t colon = field.find(':');
    const std::string_view spec = colon == field.npos ? std::string_view() : field.substr(colon + 1);
    field = field.substr(0, colon);
    char conversion = 0;
    if (const size_t mark = field.find('!'); mark != field.npos) {
      if (field.substr(mark) != "!r" && field.substr(mark) != "!s") runtime.fail("format: conversion '{}'", field);
      conversion = field[mark + 1];
      field = field.substr(0, mark);
    }
    if (field.find_first_of("{.[") != field.npos) runtime.fail_unsupported("format: field '{}'", field);
    append_brace_field(runtime, out, brace_argument(runtime, field, args, next), conversion, spec);
    at = close + 1;
  }
  return out;
}

}  // namespace mneme::jinja
