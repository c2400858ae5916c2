#include "engine/grammar/json_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <vector>

#include "base/json.h"
#include "base/utf8.h"
#include "engine/grammar/gbnf.h"

namespace mneme {
namespace {

struct PlainRule {
  std::string_view name;
  std::string_view body;
  std::array<std::string_view, 6> uses;
};

// The days of a month are exact, leap years included: a year divisible by 4 but not by 100, or by 400.
constexpr std::string_view kDate =
    R"([0-9]{4} "-" ( ("0" [13578] | "1" [02]) "-" ("0" [1-9] | [12] [0-9] | "3" [01]))"
    R"( | ("0" [469] | "11") "-" ("0" [1-9] | [12] [0-9] | "30"))"
    R"( | "02-" ("0" [1-9] | "1" [0-9] | "2" [0-8]) ))"
    R"( | ( [0-9]{2} ("0" [48] | [2468] [048] | [13579] [26]) | ("0" [048] | [2468] [048] | [13579] [26]) "00" ) "-02-29")";

constexpr std::array kPlainRules = {
    PlainRule{"space", R"(| " " | "\n" [ \t]{0,20})", {}},
    PlainRule{"hex", "[0-9a-fA-F]", {}},
    PlainRule{"char",
              R"([^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" ([0-9a-cA-CefEF] hex{3} | [dD] [0-7] hex{2})"
              R"( | [dD] [89abAB] hex{2} "\\u" [dD] [c-fC-F] hex{2})))",
              {"hex"}},
    PlainRule{"string", R"("\"" char* "\"" space)", {"char", "space"}},
    PlainRule{"integral-part", R"("0" | [1-9] [0-9]{0,15})", {}},
    PlainRule{"decimal-part", "[0-9]{1,16}", {}},
    PlainRule{"number",
              R"("-"? integral-part ("." decimal-part)? ([eE] [-+]? [0-9]{1,2})? space)",
              {"integral-part", "decimal-part", "space"}},
    PlainRule{"integer", R"("-"? integral-part space)", {"integral-part", "space"}},
    PlainRule{"boolean", R"(("true" | "false") space)", {"space"}},
    PlainRule{"null", R"("null" space)", {"space"}},
    PlainRule{"value",
              "object | array | string | number | boolean | null",
              {"object", "array", "string", "number", "boolean", "null"}},
    PlainRule{"object",
              R"("{" space (string ":" space value ("," space string ":" space value)*)? "}" space)",
              {"string", "value", "space"}},
    PlainRule{"array", R"("[" space (value ("," space value)*)? "]" space)", {"value", "space"}},
    PlainRule{"date", kDate, {}},
    PlainRule{"time",
              R"(([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,9})?)"
              R"( ("Z" | [-+] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9]))",
              {}},
    PlainRule{"date-time", R"(date "T" time)", {"date", "time"}},
    PlainRule{"uuid", R"(hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12})", {"hex"}},
};

const PlainRule* find_plain(std::string_view name) {
  const auto found =
      std::find_if(kPlainRules.begin(), kPlainRules.end(), [&](const PlainRule& r) { return r.name == name; });
  return found == kPlainRules.end() ? nullptr : &*found;
}

/// Two numbers of as many digits, given as digits: GBNF for those from low to high.
std::string equal_length_range(std::string_view low, std::string_view high) {
  const size_t n = low.size();
  if (low.find_first_not_of('0') == std::string_view::npos && high.find_first_not_of('9') == std::string_view::npos) {
    return n == 1 ? "[0-9]" : fmt::format("[0-9]{{{}}}", n);
  }
  const auto digits = [](char first, char last) {
    return first == last ? fmt::format("\"{}\"", first) : fmt::format("[{}-{}]", first, last);
  };
  if (n == 1) return digits(low[0], high[0]);
  if (low[0] == high[0])
    return fmt::format("{} {}", digits(low[0], low[0]), equal_length_range(low.substr(1), high.substr(1)));
  // First digits whose following digits are free lie between those that bound them.
  std::vector<std::string> ways;
  char first = low[0], last = high[0];
  if (low.find_first_not_of('0', 1) != std::string_view::npos) {
    ways.push_back(fmt::format("\"{}\" ({})", first, equal_length_range(low.substr(1), std::string(n - 1, '9'))));
    ++first;
  }
  std::string top;
  if (high.find_first_not_of('9', 1) != std::string_view::npos) {
    top = fmt::format("\"{}\" ({})", last, equal_length_range(std::string(n - 1, '0'), high.substr(1)));
    --last;
  }
  if (first <= last) ways.push_back(fmt::format("{} [0-9]{{{}}}", digits(first, last), n - 1));
  if (!top.empty()) ways.push_back(top);
  return fmt::format("({})", fmt::join(ways, " | "));
}

/// Ways to write the numbers from low to high, one a number of digits.
void append_ranges(uint64_t low, uint64_t high, std::string_view sign, std::vector<std::string>& ways) {
  const std::string last = fmt::format("{}", high);
  for (std::string from = fmt::format("{}", low); from.size() <= last.size();
       from = std::string(1, '1').append(from.size(), '0')) {
    const std::string to = from.size() == last.size() ? last : std::string(from.size(), '9');
    ways.push_back(std::string(sign) + equal_length_range(from, to));
  }
}

}  // namespace

bool JsonRuleBook::has(std::string_view name) {
  return find_plain(name) != nullptr;
}

std::string JsonRuleBook::use(std::string_view name) {
  const PlainRule* rule = find_plain(name);
  assert(rule != nullptr);
  if (add(name, rule->body)) {
    for (const std::string_view used : rule->uses) {
      if (!used.empty()) use(used);
    }
  }
  return std::string(name);
}

std::string JsonRuleBook::reserve(std::string_view hint) {
  constexpr size_t kLongest = 60;
  std::string base;
  for (const char c : hint.substr(0, kLongest)) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
    base += plain ? c : '-';
  }
  if (base.empty()) base = "rule";
  int& n = next_number_.try_emplace(base, 2).first->second;
  std::string name = base;
  while (find_plain(name) != nullptr || !add(name, "")) name = fmt::format("{}-{}", base, n++);
  return name;
}

void JsonRuleBook::define(const std::string& name, std::string body) {
  add(name, "");
  std::string& rule = rules_.find(name)->second;
  size_ += body.size() - rule.size();
  rule = std::move(body);
}

bool JsonRuleBook::add(std::string_view name, std::string_view body) {
  const bool added = rules_.try_emplace(std::string(name), body).second;
  if (added) size_ += name.size() + body.size() + std::string_view(" ::= \n").size();
  return added;
}

std::string JsonRuleBook::text() const {
  std::string out;
  out.reserve(size());
  for (const auto& [name, body] : rules_) {
    out += name;
    out += " ::= ";
    out += body;
    out += '\n';
  }
  return out;
}

std::string json_char_gbnf(const CharSet& characters) {
  static const CharSet kPlain = CharSet({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}).complement();
  std::vector<std::string> ways;
  if (const CharSet plain = characters.intersection(kPlain); !plain.empty()) ways.push_back(gbnf_class(plain));
  const CharSet escaped = characters.intersection(kPlain.complement());
  for (const CharRange& r : escaped.ranges()) {
    for (uint32_t c = r.first; c <= r.last; ++c) {
      std::string text;
      append_utf8(text, c);
      const std::string quoted = Json(text).dump();
      ways.push_back(gbnf_literal(std::string_view(quoted).substr(1, quoted.size() - 2)));
    }
  }
  return ways.size() == 1 ? ways.front() : fmt::format("({})", fmt::join(ways, " | "));
}

std::string integer_range_gbnf(int64_t low, int64_t high) {
  assert(low <= high);
  std::vector<std::string> ways;
  const auto magnitude = [](int64_t x) { return x < 0 ? 0 - static_cast<uint64_t>(x) : static_cast<uint64_t>(x); };
  if (low < 0) append_ranges(high < 0 ? magnitude(high) : 1, magnitude(low), "\"-\" ", ways);
  if (high >= 0) append_ranges(low > 0 ? magnitude(low) : 0, magnitude(high), "", ways);
  return fmt::format("({})", fmt::join(ways, " | "));
}

std::string json_value_gbnf() {
  JsonRuleBook book;
  book.define("root", book.use("value"));
  return book.text();
}

std::string json_object_gbnf() {
  JsonRuleBook book;
  book.define("root", book.use("object"));
  return book.text();
}

}  // namespace mneme
