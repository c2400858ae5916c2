#include "train/abacus/program_maker.h"

#include <fmt/format.h>

#include <array>
#include <span>
#include <vector>

namespace mneme::train::abacus {
namespace {

/// A step: how it is called in keys, how it is said, and its code. In words and code '#' stands for the number and '@'
/// for the value that it works on.
struct Step {
  std::string_view name;
  std::array<std::string_view, 2> words;
  std::string_view code;
  int least = 0, most = 0;  ///< Range of the number; 0: it has none.
};

constexpr Step kKeeps[] = {
    {"keep-even", {"keep the even numbers", "drop the odd ones"}, "(keep x (even x) @)"},
    {"keep-odd", {"keep the odd numbers", "drop the even ones"}, "(keep x (odd x) @)"},
    {"keep-above", {"keep what is above #", "keep the numbers greater than #"}, "(keep x (> x #) @)", 1, 12},
    {"keep-below", {"keep what is below #", "keep the numbers less than #"}, "(keep x (< x #) @)", 1, 12},
    {"keep-multiples", {"keep multiples of #", "keep what # divides"}, "(keep x (= 0 (mod x #)) @)", 2, 9},
    {"drop-multiples", {"drop multiples of #", "drop what # divides"}, "(keep x (not (= 0 (mod x #))) @)", 2, 9},
};
constexpr Step kMaps[] = {
    {"map-plus", {"add # to each", "raise each by #"}, "(map x (+ x #) @)", 1, 12},
    {"map-minus", {"subtract # from each", "lower each by #"}, "(map x (- x #) @)", 1, 12},
    {"map-times", {"multiply each by #", "scale each by #"}, "(map x (* x #) @)", 2, 9},
    {"map-square", {"square each", "multiply each by itself"}, "(map x (* x x) @)"},
    {"map-negate", {"negate each", "flip the sign of each"}, "(map x (- 0 x) @)"},
    {"map-mod", {"take each modulo #", "reduce each modulo #"}, "(map x (mod x #) @)", 2, 9},
    {"map-abs", {"make each positive", "take absolute values"}, "(map x (abs x) @)"},
};
constexpr Step kOrders[] = {
    {"rev", {"reverse the order", "turn them around"}, "(rev @)"},
    {"sort", {"sort them", "put them in order"}, "(sort @)"},
    {"take", {"take the first #", "leave only the first #"}, "(take # @)", 2, 5},
    {"drop", {"skip the first #", "leave out the first #"}, "(drop # @)", 1, 3},
};
constexpr Step kEnds[] = {
    {"sum", {"return the sum", "add them up"}, "(sum @)"},
    {"len", {"return the count", "count them"}, "(len @)"},
    {"max", {"return the largest", "find the maximum"}, "(max @)"},
    {"min", {"return the smallest", "find the minimum"}, "(min @)"},
    {"first", {"return the first", "pick the first one"}, "(first @)"},
    {"last", {"return the last", "pick the last one"}, "(last @)"},
};
/// Of a number, as an expression: "n plus 3".
constexpr Step kAmounts[] = {
    {"plus", {"@ plus #", "the sum of @ and #"}, "(+ @ #)", 1, 12},
    {"minus", {"@ minus #", "@ less #"}, "(- @ #)", 1, 12},
    {"times", {"@ times #", "the product of @ and #"}, "(* @ #)", 2, 9},
    {"square", {"@ squared", "the square of @"}, "(* @ @)"},
    {"negate", {"minus @", "@ negated"}, "(- 0 @)"},
    {"mod", {"@ modulo #", "the rest of @ by #"}, "(mod @ #)", 2, 9},
    {"constant", {"#", "just #"}, "#", 1, 12},
};
constexpr Step kConditions[] = {
    {"even", {"@ is even", "2 divides @"}, "(even @)"},
    {"odd", {"@ is odd", "@ is not even"}, "(odd @)"},
    {"above", {"@ is above #", "@ is greater than #"}, "(> @ #)", 1, 12},
    {"below", {"@ is below #", "@ is less than #"}, "(< @ #)", 1, 12},
    {"multiple", {"@ is a multiple of #", "# divides @"}, "(= 0 (mod @ #))", 2, 9},
};
constexpr Step kPairs[] = {
    {"a-plus-b", {"the sum of a and b", "a plus b"}, "(+ a b)"},
    {"a-minus-b", {"the difference of a and b", "a minus b"}, "(- a b)"},
    {"a-times-b", {"the product of a and b", "a times b"}, "(* a b)"},
    {"larger", {"the larger of a and b", "the maximum of a and b"}, "(max a b)"},
    {"smaller", {"the smaller of a and b", "the minimum of a and b"}, "(min a b)"},
};
/// Of a result, as an order.
constexpr Step kThens[] = {
    {"then-plus", {"add #", "plus #"}, "(+ @ #)", 1, 12},
    {"then-minus", {"subtract #", "minus #"}, "(- @ #)", 1, 12},
    {"then-times", {"multiply by #", "times #"}, "(* @ #)", 2, 9},
    {"then-mod", {"take it modulo #", "modulo #"}, "(mod @ #)", 2, 9},
    {"then-abs", {"make it positive", "take the absolute value"}, "(abs @)"},
};

std::string filled(std::string_view pattern, int number, std::string_view value) {
  std::string out;
  for (const char c : pattern) {
    if (c == '#') {
      out += std::to_string(number);
    } else if (c == '@') {
      out += value;
    } else {
      out += c;
    }
  }
  return out;
}

/// A program as it grows.
class Draft {
 public:
  explicit Draft(PhiloxStream& random) : random_(random) {}

  /// Draws one of `steps` and returns its words; `code` becomes its code around what `code` was.
  std::string say(std::span<const Step> steps, std::string_view value, std::string& code) {
    const Step& step = steps[random_.next_below(steps.size())];
    int number = 0;
    if (step.most > 0) {
      number = step.least + static_cast<int>(random_.next_below(static_cast<uint64_t>(step.most - step.least + 1)));
    }
    note(step.name);
    if (step.most > 0) key_ += fmt::format(" {}", number);
    code = filled(step.code, number, code);
    return filled(step.words[random_.next_below(2)], number, value);
  }

  void note(std::string_view name) {
    if (!structure_.empty()) structure_ += ' ', key_ += ' ';
    structure_ += name;
    key_ += name;
  }

  DescribedProgram finish(std::string_view parameters, const std::string& words, const std::string& code) const {
    return {fmt::format("; {}\n(def f ({})", words, parameters), fmt::format(" {})", code), structure_, key_};
  }

 private:
  PhiloxStream& random_;
  std::string structure_, key_;
};

DescribedProgram steps_through_list(PhiloxStream& random) {
  Draft draft(random);
  const bool counts = random.next_below(4) == 0;
  std::string code = counts ? "(range 1 n)" : "xs";
  draft.note(counts ? "range" : "xs");
  std::string words =
      fmt::format("{} {}", random.next_below(2) == 0 ? "take" : "from", counts ? "the numbers from 1 to n" : "xs");
  // One to three steps of different kinds, in any order.
  std::array<std::span<const Step>, 3> kinds = {kKeeps, kMaps, kOrders};
  for (size_t i = 2; i > 0; --i) std::swap(kinds[i], kinds[random.next_below(i + 1)]);
  const size_t n_steps = 1 + random.next_below(3);
  for (size_t i = 0; i < n_steps; ++i) words += ", " + draft.say(kinds[i], "them", code);
  if (random.next_below(4) != 0) words += ", " + draft.say(kEnds, "them", code);
  return draft.finish(counts ? "n" : "xs", words, code);
}

DescribedProgram choice(PhiloxStream& random) {
  Draft draft(random);
  draft.note("if");
  std::string condition = "n", first = "n", second = "n";
  const std::string asked = draft.say(kConditions, "n", condition);
  const std::string yes = draft.say(kAmounts, "n", first), no = draft.say(kAmounts, "n", second);
  if (first == second) return choice(random);
  const std::string words = random.next_below(2) == 0 ? fmt::format("if {} return {}, otherwise {}", asked, yes, no)
                                                      : fmt::format("return {} if {}, else {}", yes, asked, no);
  return draft.finish("n", words, fmt::format("(if {} {} {})", condition, first, second));
}

DescribedProgram arithmetic(PhiloxStream& random) {
  Draft draft(random);
  std::string code;
  std::string words = fmt::format("{} {}", random.next_below(2) == 0 ? "compute" : "take", draft.say(kPairs, "", code));
  const size_t n_steps = 1 + random.next_below(3);
  for (size_t i = 0; i < n_steps; ++i) words += ", " + draft.say(kThens, "it", code);
  return draft.finish("a b", words, code);
}

}  // namespace

Split split_of_program(std::string_view structure, std::string_view key) {
  const bool held_out = split_of(structure) == Split::kHeldOut || split_of(key) == Split::kHeldOut;
  return held_out ? Split::kHeldOut : Split::kTrain;
}

DescribedProgram make_program(PhiloxStream& random, Split split) {
  for (;;) {
    const uint64_t kind = random.next_below(10);
    DescribedProgram program = kind < 6 ? steps_through_list(random) : kind < 8 ? choice(random) : arithmetic(random);
    if (split_of_program(program.structure, program.key) == split) return program;
  }
}

}  // namespace mneme::train::abacus
