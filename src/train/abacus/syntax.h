#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// Abacus: a language of short functions over whole numbers and lists of them, small enough that a model of a million
/// parameters learns to write it, and closed: a program can compute, and nothing else.
///
///     ; take xs, keep the even numbers, square each, return the sum
///     (def f (xs) (sum (map x (* x x) (keep x (even x) xs))))
///
/// A program is a list of definitions. Expressions:
///
///     12  -3  x                      a number of 64 bits, a parameter or bound name
///     (if c a b)                     a where c is not 0, else b
///     (let x e body)                 body with x = e
///     (map x e xs)                   the list of e for each x of xs
///     (keep x c xs)                  the x of xs for which c is not 0
///     (fold a start x e xs)          a = start, then a = e for each x of xs
///     (g e ...)                      a function of the program, or one of builtins()
///
/// Names are lower-case letters, digits and '-', beginning with a letter. What follows ';' on a line is left out.
namespace mneme::train::abacus {

/// What cannot be exceeded by any text, so that parsing takes bounded time, memory and stack.
constexpr size_t kMostBytes = 1 << 16, kMostNodes = 1024, kMostNesting = 64, kMostParameters = 8;

enum class Builtin : uint8_t {
  kAdd,
  kSub,
  kMul,
  kDiv,
  kMod,
  kLess,
  kGreater,
  kEqual,
  kAnd,
  kOr,
  kNot,
  kAbs,
  kEven,
  kOdd,
  kMin,
  kMax,
  kSum,
  kLen,
  kFirst,
  kLast,
  kRev,
  kSort,
  kTake,
  kDrop,
  kRange,
  kCons,
  kCat,
  kNth,
  kList,
};

struct BuiltinInfo {
  std::string_view name;
  Builtin builtin;
  uint32_t least, most;  ///< Arguments.
};
const std::vector<BuiltinInfo>& builtins();

enum class NodeKind : uint8_t { kNumber, kName, kIf, kLet, kMap, kKeep, kFold, kBuiltin, kCall };

/// An expression. Children are indices into Program::nodes, in the order of the text; kMap and kKeep: body, list;
/// kFold: start, body, list; kLet: value, body.
struct Node {
  NodeKind kind;
  Builtin builtin{};
  int64_t number = 0;
  uint32_t slot = 0;  ///< kName: of the frame; binders: the slot of their (first) name; kCall: index of the function.
  std::vector<uint32_t> children;
};

struct Function {
  std::string name;
  uint32_t n_parameters = 0;
  uint32_t n_slots = 0;  ///< Parameters and all names bound inside, each at a slot of its own.
  uint32_t body = 0;
};

struct Program {
  std::vector<Node> nodes;
  std::vector<Function> functions;

  /// Null when there is none of that name.
  const Function* find(std::string_view name) const;
};

/// Parses a text and resolves all names. Throws Error(kCorruptData) with the byte where it goes wrong.
Program parse(std::string_view text);

/// `text` up to the parenthesis that closes the first definition; all of it when that never closes. Comments count as
/// comments.
std::string_view first_definition(std::string_view text);

}  // namespace mneme::train::abacus
