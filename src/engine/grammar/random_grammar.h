#pragma once

#include <fmt/format.h>

#include <string>

#include "base/philox.h"

namespace mneme {

/// Random grammars over the letters a, b and é, with everything that GBNF has; for tests. Some are left recursive or
/// match no finite text.
class RandomGrammar {
 public:
  explicit RandomGrammar(PhiloxStream& random) : random_(random) {}

  std::string text() {
    std::string out;
    for (int rule = 0; rule < kRules; ++rule) out += name(rule) + " ::= " + alternatives(2) + "\n";
    return out;
  }

 private:
  static constexpr int kRules = 3;
  static std::string name(int rule) { return rule == 0 ? "root" : fmt::format("r{}", rule); }

  std::string alternatives(int depth) {
    std::string out = sequence(depth);
    for (uint64_t n = random_.next_below(3); n > 0; --n) out += fmt::format(" | {}", sequence(depth));
    return out;
  }
  std::string sequence(int depth) {
    std::string out;
    for (uint64_t n = random_.next_below(4); n > 0; --n) {
      out += element(depth);
      out += repetition();
      out += ' ';
    }
    return out.empty() ? "\"\"" : out;
  }
  std::string element(int depth) {
    switch (random_.next_below(depth > 0 ? 7 : 5)) {
      case 0:
        return "\"a\"";
      case 1:
        return "\"b\"";
      case 2:
        return "\"é\"";
      case 3:
        return "[^a]";
      case 4:
        return name(static_cast<int>(random_.next_below(kRules)));
      default:
        return fmt::format("({})", alternatives(depth - 1));
    }
  }
  std::string repetition() {
    switch (random_.next_below(10)) {
      case 0:
        return "*";
      case 1:
        return "+";
      case 2:
        return "?";
      case 3:
        return "{2}";
      case 4:
        return "{1,2}";
      case 5:
        return "{0,3}";
      case 6:
        return "{2,}";
      default:
        return "";
    }
  }

  PhiloxStream& random_;
};

}  // namespace mneme
