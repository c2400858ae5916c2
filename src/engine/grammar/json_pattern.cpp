#include "engine/grammar/json_pattern.h"

#include <fmt/format.h>

#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/utf8.h"
#include "engine/grammar/char_set.h"
#include "engine/grammar/gbnf.h"
#include "engine/grammar/json_rules.h"

namespace mneme {
namespace {

constexpr int kNesting = 64;

const CharSet kDigits({{'0', '9'}});
const CharSet kWord({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}});
const CharSet kSpace({{'\t', '\r'},
                      {' ', ' '},
                      {0xA0, 0xA0},
                      {0x1680, 0x1680},
                      {0x2000, 0x200A},
                      {0x2028, 0x2029},
                      {0x202F, 0x202F},
                      {0x205F, 0x205F},
                      {0x3000, 0x3000},
                      {0xFEFF, 0xFEFF}});
const CharSet kLineEnds({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}});

class PatternParser {
 public:
  PatternParser(std::string_view pattern, std::string_view where) : pattern_(pattern), where_(where) {}

  std::string parse() {
    if (!is_valid_utf8(pattern_)) refuse("text that is UTF-8");
    if (!take('^')) refuse("a pattern that begins with ^ and ends with $");
    std::string out = sequence(0);
    if (peek() == '|') refuse("alternatives inside a group only: ^(a|b)$");
    if (!take('$')) refuse("a pattern that begins with ^ and ends with $");
    if (at_ != pattern_.size()) refuse("nothing behind $");
    return out.empty() ? "\"\"" : out;
  }

 private:
  [[noreturn]] void refuse(std::string_view expected) const {
    fail(ErrorCode::kUnsupported, "[json schema] expected {}, found pattern '{}' (at byte {}), in {}", expected,
         brief_text(pattern_, 120), at_ + 1, where_);
  }

  char peek() const { return at_ < pattern_.size() ? pattern_[at_] : '\0'; }
  bool at_end() const { return at_ == pattern_.size(); }
  bool take(char c) {
    if (at_end() || pattern_[at_] != c) return false;
    ++at_;
    return true;
  }

  std::string alternatives(int nesting) {
    std::vector<std::string> ways = {sequence(nesting)};
    while (take('|')) ways.push_back(sequence(nesting));
    for (std::string& way : ways) {
      if (way.empty()) way = "\"\"";
    }
    return fmt::format("({})", fmt::join(ways, " | "));
  }

  std::string sequence(int nesting) {
    std::string out;
    while (!at_end() && peek() != '|' && peek() != ')' && peek() != '$') {
      if (!out.empty()) out += ' ';
      out += element(nesting);
      out += quantifier();
    }
    return out;
  }

  std::string element(int nesting) {
    switch (peek()) {
      case '(': {
        if (nesting >= kNesting) refuse("at most 64 nested groups");
        ++at_;
        if (peek() == '?') {
          ++at_;
          if (!take(':')) refuse("groups of the form ( ) or (?: )");
        }
        std::string inner = alternatives(nesting + 1);
        if (!take(')')) refuse("')' at the end of a group");
        return inner;
      }
      case '[':
        return json_char_gbnf(bracket());
      case '.':
        ++at_;
        return json_char_gbnf(kLineEnds.complement());
      case '\\': {
        const auto [set, single] = escape();
        return json_char_gbnf(set);
      }
      case '*':
      case '+':
      case '?':
      case '{':
      case '}':
      case ']':
      case '^':
        refuse("an element here");
      default:
        return json_char_gbnf(CharSet::single(character()));
    }
  }

  std::string quantifier() {
    std::string out;
    switch (peek()) {
      case '*':
      case '+':
      case '?':
        out = pattern_[at_++];
        break;
      case '{': {
        ++at_;
        const uint32_t min = count();
        uint32_t max = min;
        bool open = false;
        if (take(',')) {
          open = peek() == '}';
          if (!open) max = count();
        }
        if (!take('}')) refuse("{m}, {m,} or {m,n}");
        if (max < min) refuse("{m,n} with m <= n");
        out = open ? fmt::format("{{{},}}", min) : fmt::format("{{{},{}}}", min, max);
        break;
      }
      default:
        return out;
    }
    take('?');  // lazy: the same texts
    if (peek() == '*' || peek() == '+' || peek() == '?' || peek() == '{') refuse("one repetition at a time");
    return out;
  }

  uint32_t count() {
    if (peek() < '0' || peek() > '9') refuse("{m}, {m,} or {m,n}");
    uint32_t value = 0;
    while (peek() >= '0' && peek() <= '9') {
      value = value * 10 + static_cast<uint32_t>(pattern_[at_++] - '0');
      if (value > GbnfLimits::kRepetition) refuse(fmt::format("at most {} repetitions", GbnfLimits::kRepetition));
    }
    return value;
  }

  uint32_t character() {
    const Utf8Char c = decode_utf8(pattern_.substr(at_));
    at_ += c.length;
    return c.code_point;
  }

  CharSet bracket() {
    ++at_;
    const bool negated = take('^');
    CharSet set;
    while (!take(']')) {
      if (at_end()) refuse("']' at the end of a class");
      const auto [first, single] = bracket_element();
      // A '-' behind a class like \d, or before the closing bracket, stands for itself.
      if (!single || peek() != '-' || pattern_.substr(at_ + 1, 1) == "]") {
        set = set.united(first);
        continue;
      }
      ++at_;
      if (at_end()) refuse("']' at the end of a class");
      const auto [last, last_single] = bracket_element();
      if (!last_single || *last_single < *single) refuse("a range that rises");
      set = set.united(CharSet({{*single, *last_single}}));
    }
    if (negated) set = set.complement();
    if (set.empty()) refuse("a class with characters");
    return set;
  }

  /// A set, and its character when it is a single one.
  std::pair<CharSet, std::optional<uint32_t>> bracket_element() {
    if (peek() == '\\') return escape();
    const uint32_t c = character();
    return {CharSet::single(c), c};
  }

  std::pair<CharSet, std::optional<uint32_t>> escape() {
    ++at_;
    if (at_end()) refuse("a character after '\\'");
    const char c = pattern_[at_++];
    const auto single = [](uint32_t code_point) {
      return std::pair(CharSet::single(code_point), std::optional(code_point));
    };
    switch (c) {
      case 'd':
        return {kDigits, std::nullopt};
      case 'D':
        return {kDigits.complement(), std::nullopt};
      case 'w':
        return {kWord, std::nullopt};
      case 'W':
        return {kWord.complement(), std::nullopt};
      case 's':
        return {kSpace, std::nullopt};
      case 'S':
        return {kSpace.complement(), std::nullopt};
      case 'n':
        return single('\n');
      case 'r':
        return single('\r');
      case 't':
        return single('\t');
      case 'f':
        return single('\f');
      case 'v':
        return single('\v');
      case 'x':
        return single(hex(2));
      case 'u':
        return single(unicode());
      default:
        break;
    }
    const bool letter_or_digit = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (letter_or_digit || static_cast<unsigned char>(c) >= 0x80) refuse("an escape that is supported");
    return single(static_cast<unsigned char>(c));
  }

  uint32_t hex(int n_digits) {
    uint32_t value = 0;
    for (int i = 0; i < n_digits; ++i) {
      const char c = peek();
      uint32_t digit = 0;
      if (c >= '0' && c <= '9') {
        digit = static_cast<uint32_t>(c - '0');
      } else if (c >= 'a' && c <= 'f') {
        digit = static_cast<uint32_t>(c - 'a' + 10);
      } else if (c >= 'A' && c <= 'F') {
        digit = static_cast<uint32_t>(c - 'A' + 10);
      } else {
        refuse(fmt::format("{} hexadecimal digits", n_digits));
      }
      value = value * 16 + digit;
      ++at_;
    }
    return value;
  }

  /// \uHHHH, where a pair of surrogates is one character.
  uint32_t unicode() {
    const uint32_t first = hex(4);
    if (first < 0xD800 || first > 0xDFFF) return first;
    if (first >= 0xDC00 || !take('\\') || !take('u')) refuse("surrogates in pairs");
    const uint32_t second = hex(4);
    if (second < 0xDC00 || second > 0xDFFF) refuse("surrogates in pairs");
    return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
  }

  std::string_view pattern_, where_;
  size_t at_ = 0;
};

}  // namespace

std::string json_pattern_gbnf(std::string_view pattern, std::string_view where) {
  return PatternParser(pattern, where).parse();
}

}  // namespace mneme
