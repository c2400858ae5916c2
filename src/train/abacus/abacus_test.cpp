#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "base/error.h"
#include "train/abacus/interpreter.h"

namespace mneme::train::abacus {
namespace {

using testing::HasSubstr;

Outcome run_text(const std::string& body, std::vector<Value> arguments, const Limits& limits = {}) {
  return run(parse(body), "f", arguments, limits);
}
int64_t number_of(const std::string& body, std::vector<Value> arguments = {}) {
  const Outcome outcome = run_text(body, std::move(arguments));
  EXPECT_EQ(outcome.failure, Failure::kNone) << body << ": " << failure_name(outcome.failure);
  EXPECT_EQ(outcome.value.list, nullptr) << body;
  return outcome.value.number;
}
std::vector<int64_t> list_of(const std::string& body, std::vector<Value> arguments = {}) {
  const Outcome outcome = run_text(body, std::move(arguments));
  EXPECT_EQ(outcome.failure, Failure::kNone) << body << ": " << failure_name(outcome.failure);
  return outcome.value.list == nullptr ? std::vector<int64_t>{-999} : *outcome.value.list;
}
Failure failure_of(const std::string& body, std::vector<Value> arguments = {}, const Limits& limits = {}) {
  return run_text(body, std::move(arguments), limits).failure;
}
std::string problem_of(const std::string& text) {
  try {
    parse(text);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kCorruptData);
    return e.what();
  }
  return "none";
}

TEST(Abacus, ComputesWithNumbers) {
  EXPECT_EQ(number_of("(def f (a b) (+ (* a 3) (- b 1)))", {Value::of(4), Value::of(10)}), 21);
  EXPECT_EQ(number_of("(def f () (div -7 2))"), -4) << "quotients are rounded down";
  EXPECT_EQ(number_of("(def f () (mod -7 3))"), 2) << "rests have the sign of the divisor";
  EXPECT_EQ(number_of("(def f () (mod 7 -3))"), -2);
  EXPECT_EQ(number_of("(def f () (div 7 -1))"), -7);
  EXPECT_EQ(number_of("(def f () (if (and (< 1 2) (not (odd -4))) (max 3 9) (min 3 9)))"), 9);
  EXPECT_EQ(number_of("(def f () (or (= 1 2) (even -3)))"), 0);
  EXPECT_EQ(number_of("(def f (n) (let x (* n n) (+ x (let n 1 (+ x n)))))", {Value::of(3)}), 19);
}

TEST(Abacus, ComputesWithLists) {
  const Value xs = Value::of({5, -2, 8, 3});
  EXPECT_EQ(list_of("(def f (xs) (map x (* x x) xs))", {xs}), (std::vector<int64_t>{25, 4, 64, 9}));
  EXPECT_EQ(list_of("(def f (xs) (keep x (even x) xs))", {xs}), (std::vector<int64_t>{-2, 8}));
  EXPECT_EQ(list_of("(def f (xs) (sort (rev xs)))", {xs}), (std::vector<int64_t>{-2, 3, 5, 8}));
  EXPECT_EQ(list_of("(def f (xs) (cat (take 1 xs) (drop 3 xs)))", {xs}), (std::vector<int64_t>{5, 3}));
  EXPECT_EQ(list_of("(def f (xs) (take 9 (drop -1 xs)))", {xs}), *xs.list);
  EXPECT_EQ(list_of("(def f () (cons 7 (list 1 2)))"), (std::vector<int64_t>{7, 1, 2}));
  EXPECT_EQ(list_of("(def f () (range 2 5))"), (std::vector<int64_t>{2, 3, 4, 5}));
  EXPECT_EQ(list_of("(def f () (range 2 1))"), std::vector<int64_t>());
  EXPECT_EQ(number_of("(def f (xs) (fold a 100 x (- a x) xs))", {xs}), 86);
  EXPECT_EQ(number_of("(def f (xs) (+ (sum xs) (* (len xs) (nth 2 xs))))", {xs}), 46);
  EXPECT_EQ(number_of("(def f (xs) (- (max xs) (- (min xs) (- (first xs) (last xs)))))", {xs}), 12);
}

TEST(Abacus, FunctionsCallThemselvesAndLaterOnes) {
  EXPECT_EQ(number_of("(def f (n) (if (< n 2) 1 (* n (f (- n 1)))))", {Value::of(10)}), 3628800);
  EXPECT_EQ(number_of("(def f (n) (+ n (twice n)))\n(def twice (n) ; later\n (* 2 n))", {Value::of(5)}), 15);
  EXPECT_EQ(number_of("(def f (n) (sum (map x (if (< n 1) 0 (+ n (f (- n 1)))) (list 1 2))))", {Value::of(2)}), 8)
      << "each call has names of its own";
}

TEST(Abacus, NamesTheByteOfABadProgram) {
  EXPECT_THAT(problem_of(""), HasSubstr("a definition, found none"));
  EXPECT_THAT(problem_of("(def f (x) (+ x 1)"), HasSubstr("byte 18: expected ), found the end"));
  EXPECT_THAT(problem_of("(def f (x) (+ x y))"), HasSubstr("byte 16: expected a known name, found y"));
  EXPECT_THAT(problem_of("(def f (x) (g x))"), HasSubstr("byte 12: expected a known function, found g"));
  EXPECT_THAT(problem_of("(def f (x) (f x x))"), HasSubstr("expected 1 arguments of f, found 2"));
  EXPECT_THAT(problem_of("(def f (x) (+ x))"), HasSubstr("2 to 2 arguments of +, found 1"));
  EXPECT_THAT(problem_of("(def f (x) (if x 1))"), HasSubstr("three parts of if, found 2"));
  EXPECT_THAT(problem_of("(def sum (x) x)"), HasSubstr("expected a new name, found sum"));
  EXPECT_THAT(problem_of("(def f (x) x) (def f (x) 1)"), HasSubstr("each function once"));
  EXPECT_THAT(problem_of("(def f (x) 99999999999999999999)"), HasSubstr("expected an expression"));
  EXPECT_THAT(problem_of("(def f (x) (map y (+ y 1) y))"), HasSubstr("a known name, found y"));
  EXPECT_THAT(problem_of("(def f (x) x))"), HasSubstr("expected (, found )"));
  EXPECT_THAT(problem_of("(def f (x) \xC3\xA9)"), HasSubstr("expected an expression"));
}

TEST(Abacus, TextsAreBounded) {
  std::string deep = "(def f (x) ";
  for (size_t i = 0; i <= kMostNesting; ++i) deep += "(abs ";
  EXPECT_THAT(problem_of(deep), HasSubstr("levels"));
  std::string wide = "(def f (x) x)";
  for (size_t i = 0; i <= kMostNodes; ++i) wide += " (def g" + std::to_string(i) + " () 1)";
  EXPECT_THAT(problem_of(wide), HasSubstr("expressions"));
  EXPECT_THAT(problem_of(std::string(kMostBytes + 1, ' ')), HasSubstr("bytes"));
  std::string many = "(def f () (list";
  for (int i = 0; i < 17; ++i) many += " 1";
  EXPECT_THAT(problem_of(many + "))"), HasSubstr("arguments"));
}

TEST(Abacus, RunsEndWhateverTheProgramDoes) {
  EXPECT_EQ(failure_of("(def f (n) (f n))", {Value::of(1)}), Failure::kDepth);
  EXPECT_EQ(failure_of("(def f (n) (f n))", {Value::of(1)}, {50, 400, 100}), Failure::kSteps);
  EXPECT_EQ(failure_of("(def f (n) (if (< n 1) 0 (+ (f (- n 1)) (f (- n 1)))))", {Value::of(60)}), Failure::kSteps);
  EXPECT_EQ(failure_of("(def f () (range 1 9000000000000000000))"), Failure::kMemory);
  EXPECT_EQ(failure_of("(def f () (range -9223372036854775807 9223372036854775807))"), Failure::kMemory);
  EXPECT_EQ(failure_of("(def f () (fold a (range 1 100) x (cat a a) (range 1 40)))"), Failure::kMemory);
  EXPECT_EQ(failure_of("(def f () (sum (map x (sum (range 1 100)) (range 1 100))))", {}, {1'000'000, 400, 5000}),
            Failure::kMemory)
      << "lists that are gone count too";
  EXPECT_EQ(failure_of("(def f () (sum (range 1 100)))", {}, {150, 400, 5000}), Failure::kSteps)
      << "elements that are visited are steps";
}

TEST(Abacus, SaysWhatWentWrong) {
  const Value most = Value::of(std::numeric_limits<int64_t>::max()),
              least = Value::of(std::numeric_limits<int64_t>::min());
  EXPECT_EQ(failure_of("(def f (x) (+ x 1))", {most}), Failure::kOverflow);
  EXPECT_EQ(failure_of("(def f (x) (- x 1))", {least}), Failure::kOverflow);
  EXPECT_EQ(failure_of("(def f (x) (* x 2))", {most}), Failure::kOverflow);
  EXPECT_EQ(failure_of("(def f (x) (div x -1))", {least}), Failure::kOverflow);
  EXPECT_EQ(number_of("(def f (x) (mod x -1))", {least}), 0);
  EXPECT_EQ(failure_of("(def f (x) (abs x))", {least}), Failure::kOverflow);
  EXPECT_EQ(failure_of("(def f (xs) (sum xs))", {Value::of({most.number, 1})}), Failure::kOverflow);
  EXPECT_EQ(failure_of("(def f (x) (div x 0))", {most}), Failure::kDivision);
  EXPECT_EQ(failure_of("(def f (x) (mod x 0))", {most}), Failure::kDivision);
  EXPECT_EQ(failure_of("(def f (x) (sum x))", {most}), Failure::kType);
  EXPECT_EQ(failure_of("(def f (x) (+ x (list 1)))", {most}), Failure::kType);
  EXPECT_EQ(failure_of("(def f (x) (map y (list y) (list x)))", {most}), Failure::kType) << "lists hold numbers";
  EXPECT_EQ(failure_of("(def f (x) (if (list) 1 2))", {most}), Failure::kType);
  for (const char* body :
       {"(max (list))", "(first (list))", "(last (list))", "(nth 1 (list 5))", "(nth -1 (list 5))"}) {
    EXPECT_EQ(failure_of("(def f () " + std::string(body) + ")"), Failure::kEmpty) << body;
  }
  EXPECT_EQ(failure_of("(def g () 1)"), Failure::kNoFunction);
  EXPECT_EQ(failure_of("(def f (x) x)"), Failure::kNoFunction) << "called without its argument";
}

TEST(Abacus, CutsAtTheEndOfTheFirstDefinition) {
  EXPECT_EQ(first_definition("; (a\n(def f () (+ 1 2)) (def g"), "; (a\n(def f () (+ 1 2))");
  EXPECT_EQ(first_definition("(def f () (+ 1 2)"), "(def f () (+ 1 2)");
  EXPECT_EQ(first_definition(") (x) y"), ") (x)");
  EXPECT_EQ(first_definition("(x ; )"), "(x ; )");
}

}  // namespace
}  // namespace mneme::train::abacus
