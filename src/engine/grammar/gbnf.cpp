#include "engine/grammar/gbnf.h"

#include <fmt/format.h>

#include <map>
#include <optional>

#include "base/error.h"
#include "base/utf8.h"

namespace mneme {
namespace {

bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

std::optional<uint32_t> hex_value(char c) {
  if (is_digit(c)) return static_cast<uint32_t>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<uint32_t>(c - 'a' + 10);
  if (c >= 'A' && c <= 'F') return static_cast<uint32_t>(c - 'A' + 10);
  return std::nullopt;
}

Expression repeat(Expression body, uint32_t min, uint32_t max) {
  Expression out;
  out.kind = Expression::Kind::kRepeat;
  out.min = min;
  out.max = max;
  out.parts.push_back(std::move(body));
  return out;
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Rules parse() {
    skip_space(true);
    while (!at_end()) parse_rule();
    for (size_t i = 0; i < rules_.names.size(); ++i) {
      if (defined_at_[i] == kNowhere) {
        fail_at(used_at_[i], fmt::format("a rule named '{}'", shortened(rules_.names[i], 60)), "no definition");
      }
    }
    const auto root = index_.find("root");
    if (root == index_.end())
      fail(ErrorCode::kInvalidArgument, "[parse grammar] expected a rule named 'root', found none");
    rules_.root = root->second;
    return std::move(rules_);
  }

 private:
  static constexpr size_t kNowhere = ~size_t{0};
  static constexpr int kRepetitionsInARow = 4;

  bool at_end() const { return at_ == text_.size(); }
  char peek() const { return at_end() ? '\0' : text_[at_]; }
  bool take(char c) {
    if (at_end() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  [[noreturn]] void fail_at(size_t at, std::string_view expected, std::string_view found) const {
    size_t line = 1, column = 1;
    for (size_t i = 0; i < at; ++i) {
      if (text_[i] == '\n') {
        ++line;
        column = 1;
      } else if ((static_cast<unsigned char>(text_[i]) & 0xC0) != 0x80) {
        ++column;
      }
    }
    fail(ErrorCode::kInvalidArgument, "[parse grammar] expected {}, found {}, in line {}, column {}", expected, found,
         line, column);
  }

  [[noreturn]] void fail_here(std::string_view expected) const {
    if (at_end()) fail_at(at_, expected, "the end");
    if (peek() == '\n' || peek() == '\r') fail_at(at_, expected, "the end of the line");
    const Utf8Char c = decode_utf8(text_.substr(at_));
    if (!c.valid) fail_at(at_, expected, "a byte that is not UTF-8");
    if (c.code_point < 0x20 || c.code_point == 0x7F) fail_at(at_, expected, fmt::format("U+{:04X}", c.code_point));
    fail_at(at_, expected, fmt::format("'{}'", text_.substr(at_, c.length)));
  }

  /// Spaces, tabs and comments; line ends too when `newlines`.
  void skip_space(bool newlines) {
    for (;;) {
      if (peek() == '#') {
        while (!at_end() && peek() != '\n' && peek() != '\r') ++at_;
      } else if (!at_end() && (peek() == ' ' || peek() == '\t' || (newlines && (peek() == '\n' || peek() == '\r')))) {
        ++at_;
      } else {
        return;
      }
    }
  }

  std::string_view parse_name() {
    const size_t begin = at_;
    while (is_name_char(peek())) ++at_;
    if (at_ == begin) fail_here("the name of a rule");
    return text_.substr(begin, at_ - begin);
  }

  uint32_t rule_number(std::string_view name, size_t used_at) {
    const auto [found, added] = index_.try_emplace(std::string(name), static_cast<uint32_t>(rules_.names.size()));
    if (added) {
      rules_.names.emplace_back(name);
      rules_.bodies.emplace_back();
      defined_at_.push_back(kNowhere);
      used_at_.push_back(used_at);
    }
    return found->second;
  }

  void parse_rule() {
    const size_t begin = at_;
    const std::string_view name = parse_name();
    const uint32_t number = rule_number(name, begin);
    if (defined_at_[number] != kNowhere) {
      fail_at(begin, "a new rule", fmt::format("a second definition of '{}'", shortened(name, 60)));
    }
    defined_at_[number] = begin;
    skip_space(false);
    if (text_.substr(at_, 3) != "::=") fail_here("'::='");
    at_ += 3;
    skip_space(true);
    Expression body = parse_alternatives(0);
    rules_.bodies[number] = std::move(body);
    if (!at_end() && peek() != '\n' && peek() != '\r') fail_here("an element or the end of the rule");
    skip_space(true);
  }

  Expression parse_alternatives(int nesting) {
    Expression out;
    out.kind = Expression::Kind::kAlternatives;
    out.parts.push_back(parse_sequence(nesting));
    while (take('|')) {
      skip_space(true);
      out.parts.push_back(parse_sequence(nesting));
    }
    if (out.parts.size() > 1) return out;
    Expression only = std::move(out.parts.front());
    return only;
  }

  Expression parse_sequence(int nesting) {
    Expression out;
    int n_repetitions = 0;  // directly behind each other
    for (;;) {
      const char c = peek();
      const bool repetition = c == '*' || c == '+' || c == '?' || c == '{';
      n_repetitions = repetition ? n_repetitions + 1 : 0;
      if (c == '"') {
        out.parts.push_back(parse_literal());
      } else if (c == '[') {
        out.parts.push_back(parse_class());
      } else if (c == '.') {
        ++at_;
        Expression any;
        any.kind = Expression::Kind::kCharacters;
        any.characters = CharSet::all();
        out.parts.push_back(std::move(any));
      } else if (c == '(') {
        out.parts.push_back(parse_group(nesting));
      } else if (is_name_char(c)) {
        const size_t begin = at_;
        Expression reference;
        reference.kind = Expression::Kind::kRule;
        reference.rule = rule_number(parse_name(), begin);
        out.parts.push_back(std::move(reference));
      } else if (repetition) {
        if (out.parts.empty()) fail_here("an element before the repetition");
        if (n_repetitions > kRepetitionsInARow) fail_here("an element: too many repetitions in a row");
        apply_repetition(out.parts.back());
      } else {
        return out;
      }
      skip_space(nesting > 0);
    }
  }

  Expression parse_group(int nesting) {
    if (nesting >= GbnfLimits::kNesting) {
      fail_at(at_, fmt::format("at most {} nested groups", GbnfLimits::kNesting), "one more");
    }
    const size_t begin = at_++;
    skip_space(true);
    Expression inner = parse_alternatives(nesting + 1);
    if (at_end()) fail_at(begin, "')' for this '('", "the end");
    if (!take(')')) fail_here("an element or ')'");
    return inner;
  }

  Expression parse_literal() {
    const size_t begin = at_++;
    Expression out;
    out.kind = Expression::Kind::kLiteral;
    while (!take('"')) {
      if (at_end() || peek() == '\n') fail_at(begin, "a closing '\"'", "an unterminated literal");
      out.text.push_back(static_cast<char32_t>(parse_char()));
    }
    return out;
  }

  Expression parse_class() {
    const size_t begin = at_++;
    const bool negated = take('^');
    std::vector<CharRange> ranges;
    while (!take(']')) {
      if (at_end() || peek() == '\n') fail_at(begin, "a closing ']'", "an unterminated class");
      const size_t first_at = at_;
      const uint32_t first = parse_char();
      uint32_t last = first;
      // A '-' directly before the closing bracket is an ordinary character.
      if (peek() == '-' && text_.substr(at_ + 1, 1) != "]") {
        ++at_;
        if (at_end()) fail_at(begin, "a closing ']'", "an unterminated class");
        last = parse_char();
        if (last < first) fail_at(first_at, "a range that rises", "one that falls");
      }
      ranges.push_back({first, last});
    }
    Expression out;
    out.kind = Expression::Kind::kCharacters;
    out.characters = CharSet(std::move(ranges));
    if (negated) out.characters = out.characters.complement();
    if (out.characters.empty()) fail_at(begin, "a class with characters", "an empty one");
    return out;
  }

  /// One character of a literal or class, escapes resolved.
  uint32_t parse_char() {
    const size_t begin = at_;
    if (!take('\\')) {
      const Utf8Char c = decode_utf8(text_.substr(at_));
      if (!c.valid) fail_here("UTF-8");
      at_ += c.length;
      return c.code_point;
    }
    if (at_end()) fail_at(begin, "a character after '\\'", "the end");
    const char c = text_[at_++];
    switch (c) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case '\\':
      case '"':
      case '[':
      case ']':
      case '-':
      case '^':
        return static_cast<unsigned char>(c);
      case 'x':
        return parse_hex(begin, 2);
      case 'u':
        return parse_hex(begin, 4);
      case 'U':
        return parse_hex(begin, 8);
      default:
        fail_at(begin, "an escape of n r t \\ \" [ ] - ^ x u U", "another one");
    }
  }

  uint32_t parse_hex(size_t begin, int n_digits) {
    uint32_t value = 0;
    for (int i = 0; i < n_digits; ++i) {
      const std::optional<uint32_t> digit = hex_value(peek());
      if (!digit) fail_here(fmt::format("{} hexadecimal digits", n_digits));
      value = value * 16 + *digit;
      ++at_;
    }
    if (value > CharSet::kLargest || (value >= 0xD800 && value <= 0xDFFF)) {
      fail_at(begin, "a code point that UTF-8 can carry", fmt::format("U+{:04X}", value));
    }
    return value;
  }

  uint32_t parse_count() {
    const size_t begin = at_;
    if (!is_digit(peek())) fail_here("a number of repetitions");
    uint32_t value = 0;
    while (is_digit(peek())) {
      value = value * 10 + static_cast<uint32_t>(text_[at_++] - '0');
      if (value > GbnfLimits::kRepetition) {
        fail_at(begin, fmt::format("at most {} repetitions", GbnfLimits::kRepetition), "more");
      }
    }
    return value;
  }

  void apply_repetition(Expression& element) {
    const size_t begin = at_;
    uint32_t min = 0, max = Expression::kUnlimited;
    switch (text_[at_++]) {
      case '*':
        break;
      case '+':
        min = 1;
        break;
      case '?':
        max = 1;
        break;
      default:  // '{'
        skip_space(false);
        min = parse_count();
        max = min;
        skip_space(false);
        if (take(',')) {
          skip_space(false);
          max = peek() == '}' ? Expression::kUnlimited : parse_count();
          skip_space(false);
        }
        if (!take('}')) fail_here("'}'");
        if (min > max) fail_at(begin, "{m,n} with m <= n", fmt::format("{{{},{}}}", min, max));
    }
    element = repeat(std::move(element), min, max);
  }

  std::string_view text_;
  size_t at_ = 0;
  Rules rules_;
  std::map<std::string, uint32_t, std::less<>> index_;
  std::vector<size_t> defined_at_, used_at_;
};

/// Characters that mean something inside quotes or brackets, and those that would not show, as escapes.
void append_escaped(std::string& out, uint32_t c) {
  switch (c) {
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    case '\\':
    case '"':
    case '[':
    case ']':
    case '-':
    case '^':
      out += '\\';
      out += static_cast<char>(c);
      return;
    default:
      break;
  }
  if (c < 0x20 || c == 0x7F) {
    out += fmt::format("\\x{:02X}", c);
  } else if (c < 0x7F) {
    out += static_cast<char>(c);
  } else {
    out += c <= 0xFFFF ? fmt::format("\\u{:04X}", c) : fmt::format("\\U{:08X}", c);
  }
}

}  // namespace

Rules parse_gbnf(std::string_view text) {
  if (text.size() > GbnfLimits::kTextBytes) {
    fail(ErrorCode::kInvalidArgument, "[parse grammar] expected at most {} bytes, found {}", GbnfLimits::kTextBytes,
         text.size());
  }
  return Parser(text).parse();
}

std::string gbnf_literal(std::string_view text) {
  std::string out = "\"";
  for (const uint32_t c : utf8_to_code_points(text)) {
    if (c == '[' || c == ']' || c == '-' || c == '^') {
      out += static_cast<char>(c);
    } else if (c < 0x80) {
      append_escaped(out, c);
    } else {
      append_utf8(out, c);
    }
  }
  return out + '"';
}

std::string gbnf_class(const CharSet& characters) {
  std::string out = "[";
  for (const CharRange& r : characters.ranges()) {
    append_escaped(out, r.first);
    if (r.last == r.first) continue;
    if (r.last > r.first + 1) out += '-';
    append_escaped(out, r.last);
  }
  return out + ']';
}

}  // namespace mneme
