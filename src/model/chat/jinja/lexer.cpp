#include "model/chat/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/error.h"
#include "base/utf8.h"
#include "model/chat/jinja/text_ops.h"

namespace mneme::jinja {
namespace {

/// Line ends as "\n" alone, without one at the very end.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

/// Bytes of white space at the start of `text`.
size_t leading_space(std::string_view text) {
  size_t end = 0;
  while (end < text.size()) {
    const Utf8Char c = decode_utf8(text.substr(end));
    if (!is_space(c.code_point)) break;
    end += c.length;
  }
  return end;
}

/// Length of `text` without the white space at its end.
size_t without_trailing_space(std::string_view text) {
  size_t end = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = decode_utf8(text.substr(at));
    at += c.length;
    if (!is_space(c.code_point)) end = at;
  }
  return end;
}

bool is_digit_char(char c) {
  return c >= '0' && c <= '9';
}

bool is_name_start(uint32_t code_point) {
  return code_point == '_' || is_letter(code_point);
}
bool is_name_part(uint32_t code_point) {
  return is_name_start(code_point) || is_digit(code_point);
}

constexpr std::array<std::string_view, 27> kOperators = {"**", "//", "==", "!=", "<=", ">=", "+", "-", "*",
                                                         "/",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                         "<",  ">",  "=",  ".",  ":",  "|",  ",", ";", "!"};

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) read_text();
    add(TokenKind::kEnd, {});
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  bool rest_starts_with(std::string_view text) const { return rest().starts_with(text); }
  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  /// Moves on by `bytes` and counts the lines passed.
  void advance(size_t bytes) {
    const auto begin = source_.begin() + static_cast<std::ptrdiff_t>(at_);
    line_ += static_cast<uint32_t>(std::count(begin, begin + static_cast<std::ptrdiff_t>(bytes), '\n'));
    at_ += bytes;
  }

  /// Text up to the next tag, then the tag.
  void read_text() {
    size_t open = at_;
    while ((open = source_.find('{', open)) != std::string::npos) {
      const char next = open + 1 < source_.size() ? source_[open + 1] : 0;
      if (next == '%' || next == '{' || next == '#') break;
      ++open;
    }
    if (open == std::string::npos) {
      add_text(rest());
      advance(rest().size());
      return;
    }
    const std::string_view text = rest().substr(0, open - at_);
    const char kind = source_[open + 1];
    const char sign = open + 2 < source_.size() ? source_[open + 2] : ' ';
    add_text(text.substr(0, kept_before_tag(text, kind == '{', sign)));
    advance(open - at_ + 2 + (sign == '-' || sign == '+' ? 1 : 0));
    if (kind == '#') {
      skip_comment();
    } else if (kind == '%' && read_raw()) {
      return;
    } else {
      read_tag(kind == '{');
    }
    after_line_end_ = source_[at_ - 1] == '\n';
  }

  void add_text(std::string_view text) {
    if (!text.empty()) add(TokenKind::kText, std::string(text));
  }

  /// How much of the text before a tag stays: "-" removes white space, and without "+" the blanks between the line's
  /// start and a block or comment go too.
  size_t kept_before_tag(std::string_view text, bool is_variable, char sign) const {
    if (sign == '-') return without_trailing_space(text);
    if (sign == '+' || is_variable) return text.size();
    const size_t line_end = text.rfind('\n');
    const size_t line_start = line_end == text.npos ? 0 : line_end + 1;
    if (line_start == 0 && !after_line_end_) return text.size();
    return leading_space(text.substr(line_start)) == text.size() - line_start ? line_start : text.size();
  }

  /// Reads the end of a block or comment, `close` being "%}" or "#}": "-" removes the white space after it, "+"
  /// nothing, and otherwise one line end goes. False when there is no such end here.
  bool read_end(std::string_view close, bool trims_line_end = true) {
    size_t length = 0;
    const std::string_view text = rest();
    if (text.starts_with('-') && text.substr(1).starts_with(close)) {
      length = 1 + close.size();
      length += leading_space(text.substr(length));
    } else if (text.starts_with('+') && text.substr(1).starts_with(close) && trims_line_end) {
      length = 1 + close.size();
    } else if (text.starts_with(close)) {
      length = close.size();
      if (trims_line_end && text.substr(length).starts_with('\n')) ++length;
    } else {
      return false;
    }
    advance(length);
    return true;
  }

  void skip_comment() {
    const uint32_t first_line = line_;
    const size_t end = rest().find("#}");
    if (end == std::string_view::npos) fail_at_line(first_line, "a comment has no end");
    const bool signed_end = end > 0 && (rest()[end - 1] == '-' || rest()[end - 1] == '+');
    advance(end - (signed_end ? 1 : 0));
    read_end("#}");
  }

  /// `{% raw %} ... {% endraw %}`, whose inside is text. False, with nothing read, when another block begins here.
  bool read_raw() {
    const size_t start = at_;
    const uint32_t first_line = line_;
    advance(leading_space(rest()));
    const bool is_raw = rest_starts_with("raw");
    if (is_raw) advance(3 + leading_space(rest().substr(3)));
    if (!is_raw || !read_end("%}", false)) {
      at_ = start;
      line_ = first_line;
      return false;
    }
    for (size_t open = at_; (open = source_.find("{%", open)) != std::string::npos; open += 2) {
      std::string_view tag = std::string_view(source_).substr(open + 2);
      const char sign = tag.empty() ? ' ' : tag[0];
      if (sign == '-' || sign == '+') tag.remove_prefix(1);
      tag.remove_prefix(leading_space(tag));
      if (!tag.starts_with("endraw")) continue;
      tag.remove_prefix(6);
      tag.remove_prefix(leading_space(tag));
      if (!tag.starts_with("%}") && !tag.starts_with("-%}") && !tag.starts_with("+%}")) continue;
      const std::string_view text = rest().substr(0, open - at_);
      after_line_end_ = source_[at_ - 1] == '\n';
      add_text(text.substr(0, kept_before_tag(text, false, sign)));
      advance(source_.size() - tag.size() - at_);
      read_end("%}");
      after_line_end_ = source_[at_ - 1] == '\n';
      return true;
    }
    fail_at_line(first_line, "a raw block has no end");
  }

  /// Tokens from the beginning of a tag to its end. Brackets are counted, since "}}" may close two dicts.
  void read_tag(bool is_variable) {
    const uint32_t first_line = line_;
    add(is_variable ? TokenKind::kVariableBegin : TokenKind::kBlockBegin, {});
    std::string brackets;
    while (true) {
      advance(leading_space(rest()));
      if (rest().empty()) fail_at_line(first_line, "a tag has no end");
      if (brackets.empty() && read_tag_end(is_variable)) return;
      read_token(brackets);
    }
  }

  bool read_tag_end(bool is_variable) {
    const uint32_t line = line_;
    const bool ends =
        is_variable ? (rest_starts_with("-}}") || rest_starts_with("}}")) && read_end("}}", false) : read_end("%}");
    if (ends) tokens_.push_back({is_variable ? TokenKind::kVariableEnd : TokenKind::kBlockEnd, {}, line});
    return ends;
  }

  void read_token(std::string& brackets) {
    const char c = rest()[0];
    if (c == '"' || c == '\'') {
      read_string(c);
    } else if (is_digit_char(c)) {
      read_number();
    } else if (is_name_start(decode_utf8(rest()).code_point)) {
      read_name();
    } else {
      read_operator(brackets);
    }
  }

  void read_name() {
    size_t length = 0;
    while (length < rest().size()) {
      const Utf8Char c = decode_utf8(rest().substr(length));
      if (!is_name_part(c.code_point)) break;
      length += c.length;
    }
    add(TokenKind::kName, std::string(rest().substr(0, length)));
    advance(length);
  }

  /// Digits of one base with single underscores between them; the length read.
  size_t digits_length(std::string_view text, std::string_view digits) const {
    size_t length = 0;
    while (length < text.size()) {
      const bool underscore = text[length] == '_' && length > 0 && length + 1 < text.size();
      const char c = text[length + (underscore ? 1 : 0)];
      if (digits.find(c) == digits.npos) break;
      length += underscore ? 2 : 1;
    }
    return length;
  }

  void read_number() {
    constexpr std::string_view kDecimal = "0123456789";
    const std::string_view text = rest();
    const std::array<std::pair<char, std::string_view>, 3> bases = {
        {{'x', "0123456789abcdefABCDEF"}, {'o', "01234567"}, {'b', "01"}}};
    for (const auto& [letter, digits] : bases) {
      if (text.size() < 3 || text[0] != '0' || (text[1] | 0x20) != letter) continue;
      if (const size_t length = digits_length(text.substr(2), digits); length > 0) {
        return add_number(TokenKind::kInteger, 2 + length);
      }
    }
    size_t length = digits_length(text, kDecimal);
    bool is_float = false;
    // No fraction after a dot: `a.0.1` reads items.
    const bool after_dot = !tokens_.empty() && tokens_.back().is_operator(".");
    if (!after_dot && text.substr(length).starts_with('.')) {
      const size_t fraction = digits_length(text.substr(length + 1), kDecimal);
      if (fraction > 0) {
        is_float = true;
        length += 1 + fraction;
      }
    }
    if (!after_dot && length < text.size() && (text[length] | 0x20) == 'e') {
      const size_t sign = length + 1 < text.size() && (text[length + 1] == '+' || text[length + 1] == '-') ? 1 : 0;
      const size_t exponent = digits_length(text.substr(std::min(text.size(), length + 1 + sign)), kDecimal);
      if (exponent > 0) {
        is_float = true;
        length += 1 + sign + exponent;
      }
    }
    add_number(is_float ? TokenKind::kFloat : TokenKind::kInteger, length);
  }

  void add_number(TokenKind kind, size_t length) {
    std::string digits(rest().substr(0, length));
    digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
    add(kind, std::move(digits));
    advance(length);
  }

  void read_operator(std::string& brackets) {
    const auto found =
        std::find_if(kOperators.begin(), kOperators.end(), [&](auto op) { return rest().starts_with(op); });
    if (found == kOperators.end()) {
      fail_at_line(line_, fmt::format("unexpected character '{}'", rest().substr(0, decode_utf8(rest()).length)));
    }
    const char c = found->front();
    if (c == '(' || c == '[' || c == '{') brackets.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    if (c == ')' || c == ']' || c == '}') {
      if (brackets.empty() || brackets.back() != c) fail_at_line(line_, fmt::format("unexpected '{}'", c));
      brackets.pop_back();
    }
    add(TokenKind::kOperator, std::string(*found));
    advance(found->size());
  }

  void read_string(char quote) {
    const uint32_t first_line = line_;
    std::string value;
    size_t i = 1;
    const std::string_view text = rest();
    while (i < text.size() && text[i] != quote) {
      if (text[i] == '\\' && i + 1 < text.size()) {
        i += 1 + read_escape(text.substr(i + 1), value);
      } else {
        value += text[i++];
      }
    }
    if (i >= text.size()) fail_at_line(first_line, "a string has no end");
    tokens_.push_back({TokenKind::kString, std::move(value), first_line});
    advance(i + 1);
  }

  /// Appends what the escape after a backslash stands for; the number of characters read. Unknown escapes stay.
  size_t read_escape(std::string_view text, std::string& out) const {
    switch (text[0]) {
      case '\n':
        return 1;
      case '\\':
      case '\'':
      case '"':
        out += text[0];
        return 1;
      case 'a':
        out += '\a';
        return 1;
      case 'b':
        out += '\b';
        return 1;
      case 'f':
        out += '\f';
        return 1;
      case 'n':
        out += '\n';
        return 1;
      case 'r':
        out += '\r';
        return 1;
      case 't':
        out += '\t';
        return 1;
      case 'v':
        out += '\v';
        return 1;
      case 'x':
        return 1 + read_code_point(text.substr(1), 16, 2, 2, out);
      case 'u':
        return 1 + read_code_point(text.substr(1), 16, 4, 4, out);
      case 'U':
        return 1 + read_code_point(text.substr(1), 16, 8, 8, out);
      default:
        break;
    }
    if (text[0] >= '0' && text[0] <= '7') return read_code_point(text, 8, 1, 3, out);
    out += '\\';
    return 0;
  }

  size_t read_code_point(std::string_view text, uint32_t base, size_t least, size_t most, std::string& out) const {
    uint32_t code_point = 0;
    size_t length = 0;
    while (length < most && length < text.size()) {
      const char c = text[length];
      uint32_t digit = 99;
      if (is_digit_char(c)) digit = static_cast<uint32_t>(c - '0');
      if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') digit = static_cast<uint32_t>((c | 0x20) - 'a') + 10;
      if (digit >= base) break;
      code_point = code_point * base + digit;
      ++length;
    }
    const bool surrogate = code_point >= 0xD800 && code_point < 0xE000;
    if (length < least || code_point > 0x10FFFF || surrogate) fail_at_line(line_, "bad character escape in a string");
    append_utf8(out, code_point);
    return length;
  }

  std::string source_;
  size_t at_ = 0;
  uint32_t line_ = 1;
  bool after_line_end_ = true;  // Whether the text read next begins a line.
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(normalized(source)).run();
}

void fail_at_line(uint32_t line, std::string_view message) {
  fail(ErrorCode::kInvalidArgument, "[parse template] {}, at line {}", message, line);
}

}  // namespace mneme::jinja
