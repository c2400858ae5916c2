#include "model/chat/jinja/text_ops.h"

#include <utf8proc.h>

#include <algorithm>
#include <string_view>

#include "base/utf8.h"
#include "model/chat/jinja/print.h"

namespace mneme::jinja {
namespace {

utf8proc_category_t category(uint32_t code_point) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
}

bool is_lower_case(uint32_t code_point) {
  return category(code_point) == UTF8PROC_CATEGORY_LL;
}

uint32_t to_lower(uint32_t code_point) {
  return static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code_point)));
}

constexpr uint32_t kSharpS = 0xDF;

/// Appends the upper-case form; the one common letter whose form has two characters is German sharp s.
void append_upper(std::string& out, uint32_t code_point, bool title) {
  if (code_point == kSharpS) {
    out += title ? "Ss" : "SS";
    return;
  }
  const auto c = static_cast<utf8proc_int32_t>(code_point);
  append_utf8(out, static_cast<uint32_t>(title ? utf8proc_totitle(c) : utf8proc_toupper(c)));
}

/// End of the line ending at `at`, or `at` itself when there is none.
size_t line_end(std::string_view text, size_t at) {
  if (text.substr(at, 2) == "\r\n") return at + 2;
  const Utf8Char c = decode_utf8(text.substr(at));
  switch (c.code_point) {
    case '\n':
    case '\v':
    case '\f':
    case '\r':
    case 0x1C:
    case 0x1D:
    case 0x1E:
    case 0x85:
    case 0x2028:
    case 0x2029:
      return at + c.length;
    default:
      return at;
  }
}

/// Offset of the last character of a text that is not empty.
size_t last_char(std::string_view text) {
  for (size_t length = 2; length <= std::min<size_t>(4, text.size()); ++length) {
    if (decode_utf8(text.substr(text.size() - length)).length == length) return text.size() - length;
  }
  return text.size() - 1;
}

bool contains_char(const Text& chars, uint32_t code_point) {
  for (CharReader reader(chars); !reader.done(); reader.advance()) {
    if (reader.code_point() == code_point) return true;
  }
  return false;
}

using Ranges = std::vector<std::pair<size_t, size_t>>;

/// Byte ranges of the words of a text.
Ranges words(const Text& text) {
  Ranges ranges;
  bool inside = false;
  for (CharReader reader(text); !reader.done(); reader.advance()) {
    if (is_space(reader.code_point())) {
      inside = false;
    } else if (!inside) {
      ranges.emplace_back(reader.begin(), reader.end());
      inside = true;
    } else {
      ranges.back().second = reader.end();
    }
  }
  return ranges;
}

Value new_text(Runtime& runtime, Text text) {
  runtime.charge(sizeof(Value) + sizeof(Text));
  return text;
}

}  // namespace

bool is_space(uint32_t code_point) {
  if (code_point < 0x80)
    return code_point == ' ' || (code_point >= 9 && code_point <= 13) || (code_point >= 28 && code_point <= 31);
  if (code_point == 0x85) return true;
  const auto kind = category(code_point);
  return kind == UTF8PROC_CATEGORY_ZS || kind == UTF8PROC_CATEGORY_ZL || kind == UTF8PROC_CATEGORY_ZP;
}

bool is_letter(uint32_t code_point) {
  const auto kind = category(code_point);
  return kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO;
}

bool is_digit(uint32_t code_point) {
  return category(code_point) == UTF8PROC_CATEGORY_ND;
}

Text strip(Runtime& runtime, const Text& text, const Text* chars, bool left, bool right) {
  runtime.charge(text.cost());
  if (chars != nullptr) runtime.charge_many(text.size(), chars->size());
  const std::string_view view = text.view();
  const auto dropped = [&](size_t at) {
    const uint32_t code_point = decode_utf8(view.substr(at)).code_point;
    return chars == nullptr ? is_space(code_point) : contains_char(*chars, code_point);
  };
  size_t begin = 0;
  while (left && begin < view.size() && dropped(begin)) begin += decode_utf8(view.substr(begin)).length;
  size_t end = view.size();
  while (right && end > begin) {
    const size_t last = last_char(view.substr(begin, end - begin)) + begin;
    if (!dropped(last)) break;
    end = last;
  }
  return text.slice(begin, end);
}

Text change_case(Runtime& runtime, const Text& text, Case to) {
  runtime.charge(text.cost());
  Text out;
  constexpr std::string_view kBeforeWord = "-({[<";
  bool word_start = true;
  bool after_letter = false;
  for (CharReader reader(text); !reader.done(); reader.advance()) {
    const uint32_t code_point = reader.code_point();
    const bool upper = to == Case::kUpper || (to == Case::kTitle && !after_letter) ||
                       (to == Case::kWords && word_start) || (to == Case::kCapitalized && reader.begin() == 0) ||
                       (to == Case::kSwapped && is_lower_case(code_point));
    after_letter = is_letter(code_point);
    word_start = is_space(code_point) ||
                 (code_point < 0x80 && kBeforeWord.find(static_cast<char>(code_point)) != kBeforeWord.npos);
    if (code_point == 0xFFFD) {  // Also bytes that are no UTF-8: they stay.
      out.append(text, reader.begin(), reader.end());
      continue;
    }
    std::string changed;
    if (upper) {
      append_upper(changed, code_point, to == Case::kTitle || to == Case::kCapitalized);
    } else {
      append_utf8(changed, to_lower(code_point));
    }
    out.append(changed, reader.is_data());
  }
  return out;
}

Text replace(Runtime& runtime, const Text& text, const Text& from, const Text& to, Int limit) {
  runtime.charge(text.cost());
  Text out;
  size_t begin = 0;
  size_t search = 0;  // Ahead of begin by one character when an empty `from` has matched at begin.
  while (limit != 0 && search <= text.size()) {
    const size_t found = find_bytes(text.view(), from.view(), search);
    if (found == std::string_view::npos) break;
    runtime.charge(to.cost() + 1);
    out.append(text.slice(begin, found));
    out.append(to);
    begin = found + from.size();
    search = begin;
    if (from.empty()) search += begin < text.size() ? char_offset(text.view().substr(begin), 1) : 1;
    --limit;
  }
  out.append(text.slice(begin, text.size()));
  return out;
}

std::vector<Value> split(Runtime& runtime, const Text& text, const Text* separator, Int limit) {
  runtime.charge(text.cost());
  std::vector<Value> parts;
  if (separator == nullptr) {
    const Ranges ranges = words(text);
    for (size_t i = 0; i < ranges.size(); ++i) {
      const bool rest = limit >= 0 && static_cast<Int>(i) == limit;
      parts.push_back(new_text(runtime, text.slice(ranges[i].first, rest ? text.size() : ranges[i].second)));
      if (rest) break;
    }
    return parts;
  }
  if (separator->empty()) runtime.fail("split: empty separator");
  size_t begin = 0;
  for (; limit != 0; --limit) {
    const size_t found = find_bytes(text.view(), separator->view(), begin);
    if (found == std::string_view::npos) break;
    parts.push_back(new_text(runtime, text.slice(begin, found)));
    begin = found + separator->size();
  }
  parts.push_back(new_text(runtime, text.slice(begin, text.size())));
  return parts;
}

std::vector<Value> split_from_right(Runtime& runtime, const Text& text, const Text* separator, Int limit) {
  runtime.charge(text.cost());
  std::vector<Value> parts;
  if (separator == nullptr) {
    const Ranges ranges = words(text);
    const size_t count = ranges.size();
    const size_t splits = limit < 0 || limit >= static_cast<Int>(count) ? count : static_cast<size_t>(limit);
    if (splits < count) parts.push_back(new_text(runtime, text.slice(0, ranges[count - splits - 1].second)));
    for (size_t i = count - splits; i < count; ++i) {
      parts.push_back(new_text(runtime, text.slice(ranges[i].first, ranges[i].second)));
    }
    return parts;
  }
  if (separator->empty()) runtime.fail("rsplit: empty separator");
  size_t end = text.size();
  for (; limit != 0; --limit) {
    runtime.charge(end);
    const size_t found = find_last_bytes(text.view().substr(0, end), separator->view());
    if (found == std::string_view::npos) break;
    parts.push_back(new_text(runtime, text.slice(found + separator->size(), end)));
    end = found;
  }
  parts.push_back(new_text(runtime, text.slice(0, end)));
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<Value> split_lines(Runtime& runtime, const Text& text) {
  runtime.charge(text.cost());
  std::vector<Value> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = line_end(text.view(), at);
    if (end == at) {
      at += decode_utf8(text.view().substr(at)).length;
      continue;
    }
    lines.push_back(new_text(runtime, text.slice(begin, at)));
    begin = at = end;
  }
  if (begin < text.size()) lines.push_back(new_text(runtime, text.slice(begin, text.size())));
  return lines;
}

Text join(Runtime& runtime, const std::vector<Value>& values, const Text& separator) {
  Text out;
  for (size_t i = 0; i < values.size(); ++i) {
    const TextPtr part = to_text(runtime, values[i]);
    runtime.charge(part->cost() + separator.cost() + sizeof(Value));
    if (i > 0) out.append(separator);
    out.append(*part);
  }
  return out;
}

Text pad(Runtime& runtime, const Text& text, size_t width, char align, const Text& fill) {
  runtime.charge(text.cost());
  const size_t length = count_chars(text.view());
  if (width <= length) return text;
  const size_t missing = width - length;
  runtime.charge_many(std::max<size_t>(1, fill.cost()), missing);
  // Python puts the odd space of a centred text to the left when the width is odd.
  const size_t before = align == '>' ? missing : align == '^' ? missing / 2 + (missing & width & 1) : 0;
  Text out;
  for (size_t i = 0; i < before; ++i) out.append(fill);
  out.append(text);
  for (size_t i = before; i < missing; ++i) out.append(fill);
  return out;
}

Text escape_html(Runtime& runtime, const Text& text) {
  runtime.charge(text.cost());
  Text out;
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    std::string_view entity;
    switch (text.view()[i]) {
      case '&':
        entity = "&amp;";
        break;
      case '<':
        entity = "&lt;";
        break;
      case '>':
        entity = "&gt;";
        break;
      case '\'':
        entity = "&#39;";
        break;
      case '"':
        entity = "&#34;";
        break;
      default:
        continue;
    }
    out.append(text.slice(begin, i));
    out.append(entity, text.is_data_at(i));
    begin = i + 1;
  }
  out.append(text.slice(begin, text.size()));
  return out;
}

}  // namespace mneme::jinja
