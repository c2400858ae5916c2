#include "model/tokenizer/split_steps.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "model/tokenizer/char_class.h"

namespace mneme {
namespace {

/// A piece of text while one step looks at it. Predicates are called with an index below end.
class Scanner {
 public:
  Scanner(const CodePoints& text, size_t end) : values_(text.values.data()), classes_(text.classes.data()), end_(end) {}

  size_t end() const { return end_; }
  uint32_t value(size_t i) const { return values_[i]; }
  bool is(size_t i, uint32_t value) const { return i < end_ && values_[i] == value; }
  bool is_class(size_t i, uint16_t classes) const { return i < end_ && (classes_[i] & classes) != 0; }
  bool is_line_break(size_t i) const { return is(i, '\r') || is(i, '\n'); }

  template <typename Predicate>
  size_t run(size_t i, Predicate&& holds) const {
    while (i < end_ && holds(i)) ++i;
    return i;
  }
  size_t run_of(size_t i, uint16_t classes) const {
    return run(i, [&](size_t at) { return (classes_[at] & classes) != 0; });
  }
  /// Characters of none of the classes.
  size_t run_without(size_t i, uint16_t classes) const {
    return run(i, [&](size_t at) { return (classes_[at] & classes) == 0; });
  }
  size_t run_of_line_breaks(size_t i) const {
    return run(i, [&](size_t at) { return is_line_break(at); });
  }

  /// X?Y+ where `prefix` is whether X matches at i and `match_run` gives the end of Y*.
  template <typename MatchRun>
  static size_t with_prefix(size_t i, bool prefix, MatchRun&& match_run) {
    if (prefix) {
      const size_t to = match_run(i + 1);
      if (to > i + 1) return to;
    }
    return match_run(i);
  }

 private:
  const uint32_t* values_;
  const uint16_t* classes_;
  size_t end_;
};

uint32_t ascii_lower(uint32_t c) {
  return c >= 'A' && c <= 'Z' ? c + 32 : c;
}

/// 's|'t|'re|'ve|'m|'ll|'d, with either case if `any_case`.
size_t scan_contraction(const Scanner& s, size_t i, bool any_case) {
  if (!s.is(i, '\'') || i + 1 >= s.end()) return i;
  const auto letter = [&](size_t at) -> uint32_t {
    if (at >= s.end()) return 0;
    return any_case ? ascii_lower(s.value(at)) : s.value(at);
  };
  const uint32_t first = letter(i + 1), second = letter(i + 2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return i + 2;
  if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l'))
    return i + 3;
  return i;
}

/// \s+(?!\S)
size_t scan_space_before_space(const Scanner& s, size_t i) {
  const size_t to = s.run_of(i, kSpace);
  if (to == s.end() || to == i) return to;
  return to - 1;
}

/// \s*[\r\n]+|\s+(?!\S)|\s+
size_t scan_space(const Scanner& s, size_t i) {
  const size_t to = s.run_of(i, kSpace);
  for (size_t at = to; at > i; --at) {
    if (s.is_line_break(at - 1)) return at;
  }
  const size_t before = scan_space_before_space(s, i);
  return before > i ? before : to;
}

/// \p{N}{1,most}
size_t scan_numbers(const Scanner& s, size_t i, size_t most) {
  const size_t stop = std::min(s.end(), i + most);
  while (i < stop && s.is_class(i, kNumber)) ++i;
  return i;
}

///  ?[^\s CLASSES]+ followed by what `match_tail` takes
template <typename MatchTail>
size_t scan_other(const Scanner& s, size_t i, uint16_t classes, MatchTail&& match_tail) {
  const auto excluded = static_cast<uint16_t>(kSpace | classes);
  const size_t to = Scanner::with_prefix(i, s.is(i, ' '), [&](size_t at) { return s.run_without(at, excluded); });
  return to > i ? match_tail(to) : i;
}

/// The expressions that came with Llama 3: `word` are the classes that make words.
size_t scan_llama3(const CodePoints& text, size_t i, size_t end, uint16_t word, size_t most_numbers) {
  const Scanner s(text, end);
  if (const size_t to = scan_contraction(s, i, true); to > i) return to;
  const bool prefix = !s.is_line_break(i) && !s.is_class(i, kLetter | kNumber);
  const size_t to = Scanner::with_prefix(i, prefix, [&](size_t at) { return s.run_of(at, word); });
  if (to > i) return to;
  if (const size_t numbers = scan_numbers(s, i, most_numbers); numbers > i) return numbers;
  const auto others = static_cast<uint16_t>(word | kNumber);
  if (const size_t other = scan_other(s, i, others, [&](size_t at) { return s.run_of_line_breaks(at); }); other > i) {
    return other;
  }
  return scan_space(s, i);
}

constexpr uint16_t kStartsWord = kUpper | kTitle | kModifierLetter | kOtherLetter | kMark;
constexpr uint16_t kContinuesWord = kLower | kModifierLetter | kOtherLetter | kMark;

/// [U]*[W]+ as a backtracking matcher finds it.
size_t scan_capitals_then_small(const Scanner& s, size_t i) {
  const size_t capitals = s.run_of(i, kStartsWord);
  const size_t to = s.run_of(capitals, kContinuesWord);
  if (to > capitals) return to;
  // U* gives characters back until W can match one that is in both classes; behind it stands one that is not.
  for (size_t at = capitals; at > i; --at) {
    if (s.is_class(at - 1, kContinuesWord)) return at;
  }
  return i;
}

/// [U]+[W]*
size_t scan_capitals(const Scanner& s, size_t i) {
  const size_t capitals = s.run_of(i, kStartsWord);
  return capitals > i ? s.run_of(capitals, kContinuesWord) : i;
}

size_t scan_cased(const CodePoints& text, size_t i, size_t end, bool contractions, size_t most_numbers) {
  const Scanner s(text, end);
  const bool prefix = !s.is_line_break(i) && !s.is_class(i, kLetter | kNumber);
  size_t to = Scanner::with_prefix(i, prefix, [&](size_t at) { return scan_capitals_then_small(s, at); });
  if (to == i) to = Scanner::with_prefix(i, prefix, [&](size_t at) { return scan_capitals(s, at); });
  if (to > i) return contractions ? scan_contraction(s, to, true) : to;
  if (const size_t numbers = scan_numbers(s, i, most_numbers); numbers > i) return numbers;
  const auto tail = [&](size_t at) { return s.run(at, [&](size_t c) { return s.is_line_break(c) || s.is(c, '/'); }); };
  if (const size_t other = scan_other(s, i, kLetter | kNumber, tail); other > i) return other;
  return scan_space(s, i);
}

struct CodeRange {
  uint32_t first, last;
};

template <size_t N>
bool in_ranges(const CodeRange (&ranges)[N], uint32_t c) {
  const auto after = std::upper_bound(std::begin(ranges), std::end(ranges), c,
                                      [](uint32_t value, const CodeRange& range) { return value < range.first; });
  return after != std::begin(ranges) && c <= (after - 1)->last;
}

constexpr CodeRange kCasedLetters[] = {
    {0x41, 0x5A},       {0x61, 0x7A},       {0xB5, 0xB5},       {0xC0, 0xD6},       {0xD8, 0xF6},
    {0xF8, 0x1BA},      {0x1BC, 0x1BF},     {0x1C4, 0x293},     {0x295, 0x2AF},     {0x370, 0x373},
    {0x376, 0x377},     {0x37B, 0x37D},     {0x37F, 0x37F},     {0x386, 0x386},     {0x388, 0x38A},
    {0x38C, 0x38C},     {0x38E, 0x3A1},     {0x3A3, 0x3F5},     {0x3F7, 0x481},     {0x48A, 0x52F},
    {0x531, 0x556},     {0x10A0, 0x10C5},   {0x13A0, 0x13F5},   {0x13F8, 0x13FD},   {0x1C90, 0x1CBA},
    {0x1CBD, 0x1CBF},   {0x1D00, 0x1D2B},   {0x1D6B, 0x1D77},   {0x1D79, 0x1D9A},   {0x1E00, 0x1F15},
    {0x1F18, 0x1F1D},   {0x1F20, 0x1F45},   {0x1F48, 0x1F4D},   {0x1F50, 0x1F57},   {0x1F59, 0x1F59},
    {0x1F5B, 0x1F5B},   {0x1F5D, 0x1F5D},   {0x1F5F, 0x1F7D},   {0x1F80, 0x1FB4},   {0x1FB6, 0x1FBC},
    {0x1FBE, 0x1FBE},   {0x1FC2, 0x1FC4},   {0x1FC6, 0x1FCC},   {0x1FD0, 0x1FD3},   {0x1FD6, 0x1FDB},
    {0x1FE0, 0x1FEC},   {0x1FF2, 0x1FF4},   {0x1FF6, 0x1FFC},   {0x2102, 0x2102},   {0x2107, 0x2107},
    {0x210A, 0x2113},   {0x2115, 0x2115},   {0x2119, 0x211D},   {0x2124, 0x2124},   {0x2126, 0x2126},
    {0x2128, 0x2128},   {0x212A, 0x212D},   {0x212F, 0x2134},   {0x2139, 0x2139},   {0x213C, 0x213F},
    {0x2145, 0x2149},   {0x214E, 0x214E},   {0x2183, 0x2184},   {0x2C00, 0x2C7B},   {0x2C7E, 0x2CE4},
    {0x2CEB, 0x2CEE},   {0x2CF2, 0x2CF3},   {0xA640, 0xA66D},   {0xA680, 0xA69B},   {0xA722, 0xA76F},
    {0xA771, 0xA787},   {0xA78B, 0xA78E},   {0xAB70, 0xABBF},   {0xFB00, 0xFB06},   {0xFB13, 0xFB17},
    {0xFF21, 0xFF3A},   {0xFF41, 0xFF5A},   {0x10400, 0x1044F}, {0x104B0, 0x104D3}, {0x104D8, 0x104FB},
    {0x10C80, 0x10CB2}, {0x10CC0, 0x10CF2}, {0x118A0, 0x118DF}, {0x1E900, 0x1E943},
};
constexpr CodeRange kMarks[] = {{0x21, 0x2F},     {0x3A, 0x7E},     {0x2018, 0x201F},
                                {0x3000, 0x3002}, {0xFF01, 0xFF0F}, {0xFF1A, 0xFF5E}};
constexpr CodeRange kEastAsian[] = {{0x800, 0x9FA5}, {0xAC00, 0xD7FF}};
constexpr CodeRange kHanKana[] = {{0x3040, 0x30FF}, {0x4E00, 0x9FA5}};
constexpr CodeRange kAsciiPunctuation[] = {{0x21, 0x2F}, {0x3A, 0x40}, {0x5B, 0x60}, {0x7B, 0x7E}};

/// \s?[RANGES]+
template <size_t N>
size_t scan_space_ranges(const CodePoints& text, size_t i, size_t end, const CodeRange (&ranges)[N]) {
  const Scanner s(text, end);
  return Scanner::with_prefix(i, s.is_class(i, kSpace), [&](size_t from) {
    return s.run(from, [&](size_t at) { return in_ranges(ranges, s.value(at)); });
  });
}

/// \s?CLASSES+
size_t scan_space_classes(const CodePoints& text, size_t i, size_t end, uint16_t classes) {
  const Scanner s(text, end);
  return Scanner::with_prefix(i, s.is_class(i, kSpace), [&](size_t at) { return s.run_of(at, classes); });
}

/// [\p{P} EXTRA]+
size_t scan_punctuation(const CodePoints& text, size_t i, size_t end, std::string_view extra) {
  const Scanner s(text, end);
  return s.run(i, [&](size_t at) {
    const uint32_t c = s.value(at);
    return s.is_class(at, kPunctuation) || (c < 0x80 && extra.find(static_cast<char>(c)) != std::string_view::npos);
  });
}

size_t scan_literal(const Scanner& s, size_t i, std::string_view literal) {
  for (size_t k = 0; k < literal.size(); ++k) {
    if (!s.is(i + k, static_cast<unsigned char>(literal[k]))) return i;
  }
  return i + literal.size();
}

bool is_digit(uint32_t c) {
  return c >= '0' && c <= '9';
}

}  // namespace

size_t match_gpt2(const CodePoints& text, size_t i, size_t end) {
  const Scanner s(text, end);
  if (const size_t to = scan_contraction(s, i, false); to > i) return to;
  for (const uint16_t classes : {kLetter, kNumber}) {
    const size_t to = Scanner::with_prefix(i, s.is(i, ' '), [&](size_t at) { return s.run_of(at, classes); });
    if (to > i) return to;
  }
  const size_t other = scan_other(s, i, kLetter | kNumber, [](size_t at) { return at; });
  return other > i ? other : scan_space_before_space(s, i);
}

size_t match_llama3(const CodePoints& text, size_t i, size_t end) {
  return scan_llama3(text, i, end, kLetter, 3);
}
size_t match_qwen2(const CodePoints& text, size_t i, size_t end) {
  return scan_llama3(text, i, end, kLetter, 1);
}
size_t match_qwen35(const CodePoints& text, size_t i, size_t end) {
  return scan_llama3(text, i, end, kLetter | kMark, 1);
}

size_t match_tekken(const CodePoints& text, size_t i, size_t end) {
  return scan_cased(text, i, end, false, 1);
}
size_t match_gpt4o(const CodePoints& text, size_t i, size_t end) {
  return scan_cased(text, i, end, true, 3);
}

size_t match_deepseek3(const CodePoints& text, size_t i, size_t end) {
  const Scanner s(text, end);
  if (in_ranges(kAsciiPunctuation, s.value(i))) {
    const size_t to = s.run(i + 1, [&](size_t at) {
      const uint32_t lower = ascii_lower(s.value(at));
      return lower >= 'a' && lower <= 'z';
    });
    if (to > i + 1) return to;
  }
  const bool prefix = !s.is_line_break(i) && !s.is_class(i, kLetter | kPunctuation | kSymbol);
  size_t to = Scanner::with_prefix(i, prefix, [&](size_t at) { return s.run_of(at, kLetter | kMark); });
  if (to > i) return to;
  to = Scanner::with_prefix(i, s.is(i, ' '), [&](size_t at) { return s.run_of(at, kPunctuation | kSymbol); });
  return to > i ? s.run_of_line_breaks(to) : scan_space(s, i);
}

size_t match_number(const CodePoints& text, size_t i, size_t end) {
  return scan_numbers(Scanner(text, end), i, 1);
}
size_t match_numbers(const CodePoints& text, size_t i, size_t end) {
  return Scanner(text, end).run_of(i, kNumber);
}
size_t match_up_to_three_numbers(const CodePoints& text, size_t i, size_t end) {
  return scan_numbers(Scanner(text, end), i, 3);
}
size_t match_three_digits(const CodePoints& text, size_t i, size_t end) {
  if (end - i < 3) return i;
  return is_digit(text.values[i]) && is_digit(text.values[i + 1]) && is_digit(text.values[i + 2]) ? i + 3 : i;
}

size_t match_line_break(const CodePoints& text, size_t i, size_t end) {
  return Scanner(text, end).is_line_break(i) ? i + 1 : i;
}
size_t match_lines(const CodePoints& text, size_t i, size_t end) {
  const Scanner s(text, end);
  const bool breaks = s.is(i, '\n');
  return s.run(i, [&](size_t at) { return s.is(at, '\n') == breaks; });
}

size_t match_space_letters(const CodePoints& text, size_t i, size_t end) {
  return scan_space_classes(text, i, end, kLetter);
}
size_t match_space_punctuation(const CodePoints& text, size_t i, size_t end) {
  return scan_space_classes(text, i, end, kPunctuation);
}
size_t match_space_cased_letters(const CodePoints& text, size_t i, size_t end) {
  return scan_space_ranges(text, i, end, kCasedLetters);
}
size_t match_space_marks(const CodePoints& text, size_t i, size_t end) {
  return scan_space_ranges(text, i, end, kMarks);
}
size_t match_east_asian(const CodePoints& text, size_t i, size_t end) {
  const Scanner s(text, end);
  return s.run(i, [&](size_t at) { return in_ranges(kEastAsian, s.value(at)); });
}
size_t match_han_kana(const CodePoints& text, size_t i, size_t end) {
  const Scanner s(text, end);
  return s.run(i, [&](size_t at) { return in_ranges(kHanKana, s.value(at)); });
}

size_t match_falcon_punctuation(const CodePoints& text, size_t i, size_t end) {
  return scan_punctuation(text, i, end, "$+<=>^~|`");
}
size_t match_default_punctuation(const CodePoints& text, size_t i, size_t end) {
  return scan_punctuation(text, i, end, "$+<=>^~|");
}
size_t match_one_punctuation(const CodePoints& text, size_t i, size_t end) {
  return Scanner(text, end).is_class(i, kPunctuation) || in_ranges(kAsciiPunctuation, text.values[i]) ? i + 1 : i;
}
size_t match_bloom(const CodePoints& text, size_t i, size_t end) {
  const Scanner s(text, end);
  const auto belongs = [&](size_t at) {
    if (s.is_class(at, kSpace)) return false;
    switch (s.value(at)) {
      case '(':
      case '|':
      case '.':
      case ',':
      case '!':
      case '?':
      case ')':
      case 0x2026:
      case 0x3002:
      case 0xFF0C:
      case 0x3001:
      case 0x0964:
      case 0x06D4:
      case 0x060C:
        return false;
      default:
        return true;
    }
  };
  return Scanner::with_prefix(i, s.is(i, ' '), [&](size_t at) { return s.run(at, belongs); });
}

size_t match_sentinel(const CodePoints& text, size_t i, size_t end) {
  const Scanner s(text, end);
  const size_t digits = scan_literal(s, i, "<sentinel:");
  if (digits == i) return i;
  const size_t to = s.run(digits, [&](size_t at) { return is_digit(s.value(at)); });
  return to > digits && s.is(to, '>') ? to + 1 : i;
}
size_t match_image_code(const CodePoints& text, size_t i, size_t end) {
  const Scanner s(text, end);
  const size_t letters = scan_literal(s, i, "IMGIMG");
  if (letters == i) return i;
  size_t to = letters;
  while (to < std::min(end, letters + 4) && s.value(to) >= 'A' && s.value(to) <= 'I') ++to;
  return to > letters && s.is(to, 'Z') ? to + 1 : i;
}
size_t match_indent(const CodePoints& text, size_t i, size_t end) {
  const Scanner s(text, end);
  if (s.is(i, '\t') || s.is(i, '\n')) return i + 1;
  if (const size_t to = scan_literal(s, i, "    "); to > i) return to;
  return scan_literal(s, i, "  ");
}

void split_trailing_space(const CodePoints& text, size_t begin, size_t end, std::vector<size_t>& ends) {
  size_t run = end;
  while (run > begin && (text.classes[run - 1] & kSpace) != 0) --run;
  if (run > begin) ends.push_back(run);
  if (run < end) ends.push_back(end);
}

}  // namespace mneme
