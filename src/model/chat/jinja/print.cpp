#include "model/chat/jinja/print.h"

#include <utf8proc.h>

#include <algorithm>
#include <cmath>

#include "base/utf8.h"

namespace mneme::jinja {
namespace {

/// Whether Python's repr() shows the character itself.
bool is_printable(uint32_t code_point) {
  if (code_point < 0x7F) return code_point >= 0x20;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code_point))) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

std::string escaped_code_point(uint32_t code_point) {
  if (code_point == '\n') return "\\n";
  if (code_point == '\r') return "\\r";
  if (code_point == '\t') return "\\t";
  if (code_point < 0x100) return fmt::format("\\x{:02x}", code_point);
  if (code_point < 0x10000) return fmt::format("\\u{:04x}", code_point);
  return fmt::format("\\U{:08x}", code_point);
}

void append_string_repr(const Text& text, Text& out) {
  const std::string_view bytes = text.view();
  const bool double_quoted = bytes.find('\'') != bytes.npos && bytes.find('"') == bytes.npos;
  const char quote = double_quoted ? '"' : '\'';
  const bool any_data = text.has_data();
  out.append({&quote, 1}, any_data);
  for (CharReader reader(text); !reader.done(); reader.advance()) {
    const uint32_t code_point = reader.code_point();
    if (code_point == '\\' || code_point == static_cast<uint32_t>(quote)) {
      const char escaped[] = {'\\', static_cast<char>(code_point)};
      out.append({escaped, 2}, reader.is_data());
    } else if (is_printable(code_point)) {
      out.append(text, reader.begin(), reader.end());
    } else {
      out.append(escaped_code_point(code_point), reader.is_data());
    }
  }
  out.append({&quote, 1}, any_data);
}

class ReprWriter {
 public:
  ReprWriter(Runtime& runtime, Text& out) : runtime_(runtime), out_(out) {}

  void write(const Value& value, int depth) {
    if (depth > kMaxValueDepth) runtime_.fail("cannot print containers nested deeper than {}", kMaxValueDepth);
    runtime_.charge(sizeof(Value));
    if (value.is_string()) {
      runtime_.charge(value.as_text()->cost());
      append_string_repr(*value.as_text(), out_);
    } else if (value.is_list()) {
      write_list(value.as_list(), depth);
    } else if (value.is_dict()) {
      write_dict(value.as_dict(), depth);
    } else {
      out_.append(value.is_undefined() ? "Undefined" : to_text(runtime_, value)->view(), false);
    }
  }

 private:
  void write_list(const List& list, int depth) {
    out_.append(list.is_tuple ? "(" : "[", false);
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out_.append(", ", false);
      write(list.items[i], depth + 1);
    }
    if (list.is_tuple) {
      out_.append(list.items.size() == 1 ? ",)" : ")", false);
    } else {
      out_.append("]", false);
    }
  }

  void write_dict(const Dict& dict, int depth) {
    out_.append("{", false);
    bool first = true;
    for (const auto& [key, value] : dict.entries()) {
      if (!std::exchange(first, false)) out_.append(", ", false);
      write(key, depth + 1);
      out_.append(": ", false);
      write(value, depth + 1);
    }
    out_.append("}", false);
  }

  Runtime& runtime_;
  Text& out_;
};

}  // namespace

std::string int_text(Int number) {
  return fmt::format("{}", number);
}

std::string float_text(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
  std::string text = fmt::format("{}", number);
  if (text.find_first_of(".e") == text.npos) text += ".0";
  return text;
}

TextPtr to_text(Runtime& runtime, const Value& value) {
  if (value.is_string()) return value.as_text();
  if (value.is_undefined()) return make_text("");
  if (value.is_none()) return make_text("None");
  if (value.is_bool()) return make_text(value.as_bool() ? "True" : "False");
  if (value.is_int()) return make_text(int_text(value.as_int()));
  if (value.is_float()) return make_text(float_text(value.as_double()));
  if (value.is_other()) return make_text(fmt::format("<{}>", value.type_name()));
  return make_text(repr(runtime, value));
}

Text repr(Runtime& runtime, const Value& value) {
  Text out;
  ReprWriter(runtime, out).write(value, 0);
  // Punctuation of a container comes from here, but it must not lend a control token its brackets.
  if (out.has_data()) return {std::string(out.view()), true};
  return out;
}

}  // namespace mneme::jinja
