#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "model/chat/jinja/filters.h"
#include "model/chat/jinja/operators.h"
#include "model/chat/jinja/value.h"

/// The tree of a parsed template. It never changes after parsing, so that many threads may render it at once.
namespace mneme::jinja {

/// Number of a variable's name within its template; scopes compare numbers instead of strings.
using Symbol = uint32_t;

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Argument {
  enum class Kind { kPositional, kNamed, kSpreadList, kSpreadDict };
  Kind kind;
  std::string name;  ///< For kNamed.
  ExprPtr value;
};
using Arguments = std::vector<Argument>;

struct Literal {
  Value value;  ///< Number, string, truth value or none.
};
struct Variable {
  Symbol symbol;
  std::string name;
};
struct ListLiteral {
  std::vector<ExprPtr> items;
  bool is_tuple;
};
struct DictLiteral {
  std::vector<std::pair<ExprPtr, ExprPtr>> entries;
};
struct Attribute {
  ExprPtr object;
  std::string name;
};
struct Item {
  ExprPtr object, index;
};
struct Slice {
  ExprPtr object, start, stop, step;  ///< Missing bounds are null.
};
struct Call {
  ExprPtr callee;
  Arguments arguments;
};
struct FilterUse {
  ExprPtr input;  ///< Null inside filter blocks, whose input is the text of the block.
  std::string name;
  Filter filter;  ///< Null when there is no filter of that name: an error once it is evaluated.
  Arguments arguments;
};
struct TestUse {
  ExprPtr input;
  std::string name;
  Test test;
  Arguments arguments;
  bool negated;
};
struct Unary {
  enum class Op { kNot, kNegate, kPlus };
  Op op;
  ExprPtr operand;
};
/// first op operand op operand ..., from the left. One node for the whole chain keeps long sums from nesting deeply.
struct BinaryChain {
  ExprPtr first;
  std::vector<std::pair<BinaryOp, ExprPtr>> rest;
};
/// a < b < c: true when each pair compares so.
struct Comparison {
  ExprPtr first;
  std::vector<std::pair<CompareOp, ExprPtr>> rest;
};
/// `and` or `or` of two or more operands; gives the operand that decides.
struct Logical {
  bool is_and;
  std::vector<ExprPtr> operands;
};
struct Conditional {
  ExprPtr condition, when_true, when_false;  ///< Without else, when_false is null and the value undefined.
};

struct Expr {
  uint32_t line;
  std::variant<Literal, Variable, ListLiteral, DictLiteral, Attribute, Item, Slice, Call, FilterUse, TestUse, Unary,
               BinaryChain, Comparison, Logical, Conditional>
      node;
};

struct Statement;
using Block = std::vector<Statement>;

/// What an assignment or loop writes to: one variable, an attribute of a namespace, or several targets for the
/// elements.
struct Target {
  Symbol symbol = 0;
  std::string name;
  std::string attribute;  ///< Not empty: `name.attribute`.
  std::vector<Target> elements;
};

struct TextOutput {
  TextPtr text;
};
struct Output {
  ExprPtr value;
};
struct If {
  std::vector<std::pair<ExprPtr, Block>> branches;
  Block otherwise;
};
struct For {
  Target target;
  ExprPtr iterable;
  ExprPtr condition;  ///< May be null.
  bool recursive;
  Block body, otherwise;
};
struct Set {
  Target target;
  ExprPtr value;
};
struct SetBlock {
  Target target;
  std::vector<FilterUse> filters;
  Block body;
};
struct Parameter {
  Symbol symbol;
  std::string name;
  ExprPtr fallback;  ///< May be null.
};
struct MacroDefinition {
  Symbol symbol;
  std::string name;
  std::vector<Parameter> parameters;
  Block body;
};
/// `{% call(parameters) callee(...) %} body {% endcall %}`: the body is the macro `caller` of the callee.
struct CallBlock {
  ExprPtr call;
  MacroDefinition caller;
};
struct FilterBlock {
  std::vector<FilterUse> filters;
  Block body;
};
struct With {
  std::vector<std::pair<Target, ExprPtr>> assignments;
  Block body;
};
/// Statements without a scope of their own, as in `{% generation %}`.
struct Group {
  Block body;
};
struct Do {
  ExprPtr value;
};
struct Break {};
struct Continue {};

struct Statement {
  uint32_t line;
  std::variant<TextOutput, Output, If, For, Set, SetBlock, MacroDefinition, CallBlock, FilterBlock, With, Group, Do,
               Break, Continue>
      node;
};

/// A whole template and the names of its symbols.
struct Ast {
  Block body;
  std::vector<std::string> symbol_names;
};

/// Symbols that the interpreter itself binds; the parser numbers them first.
enum WellKnownSymbol : Symbol { kLoopSymbol, kCallerSymbol, kVarargsSymbol, kKwargsSymbol, kWellKnownSymbols };

}  // namespace mneme::jinja
