#pragma once

#include <deque>
#include <string_view>
#include <utility>
#include <vector>

#include "model/chat/jinja/ast.h"
#include "model/chat/jinja/runtime.h"

namespace mneme::jinja {

/// Variables of one level: the template, a loop's pass, a macro call. Lookups go outwards, assignments stay here.
struct Scope {
  Scope* parent;
  std::vector<std::pair<Symbol, Value>> variables;
};

/// Runs a parsed template once. `ast` and `runtime` must outlive it, and everything it returns is owned by `runtime`.
class Interpreter {
 public:
  Interpreter(const Ast& ast, Runtime& runtime);
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  /// Sets a variable of the template.
  void define(std::string_view name, Value value);
  /// The whole output.
  Text run();

  /// Runs `definition` as a call with `args`, in a scope inside `closure`; its output as a string.
  Value call_macro(const MacroDefinition& definition, Scope* closure, CallArgs& args);
  /// Runs a recursive loop over another iterable; its output as a string.
  Value recurse(const For& loop, Scope* outer, int depth, const Value& iterable);

 private:
  enum class Flow { kNext, kBreak, kContinue };
  class ScopeChange;

  Value evaluate(const Expr& expr);
  Value evaluate_node(const Literal& node) { return node.value; }
  Value evaluate_node(const Variable& node);
  Value evaluate_node(const ListLiteral& node);
  Value evaluate_node(const DictLiteral& node);
  Value evaluate_node(const Attribute& node);
  Value evaluate_node(const Item& node);
  Value evaluate_node(const Slice& node);
  Value evaluate_node(const Call& node);
  Value evaluate_node(const FilterUse& node);
  Value evaluate_node(const TestUse& node);
  Value evaluate_node(const Unary& node);
  Value evaluate_node(const BinaryChain& node);
  Value evaluate_node(const Comparison& node);
  Value evaluate_node(const Logical& node);
  Value evaluate_node(const Conditional& node);

  CallArgs evaluate_arguments(const Arguments& arguments);
  Value call_with(const Call& call, const Value* caller);
  Value call_method(const Value& object, const std::string& name, CallArgs& args);
  Value apply_filter(const FilterUse& use, const Value& input);
  Value apply_filters(const std::vector<FilterUse>& filters, Value value);

  Flow execute(const Block& block);
  Flow execute_node(const TextOutput& node);
  Flow execute_node(const Output& node);
  Flow execute_node(const If& node);
  Flow execute_node(const For& node);
  Flow execute_node(const Set& node);
  Flow execute_node(const SetBlock& node);
  Flow execute_node(const MacroDefinition& node);
  Flow execute_node(const CallBlock& node);
  Flow execute_node(const FilterBlock& node);
  Flow execute_node(const With& node);
  Flow execute_node(const Group& node) { return execute(node.body); }
  Flow execute_node(const Do& node);
  Flow execute_node(const Break&) { return Flow::kBreak; }
  Flow execute_node(const Continue&) { return Flow::kContinue; }

  Flow run_loop(const For& loop, std::vector<Value> items, Scope* outer, int depth);
  std::vector<Value> matching_items(const For& loop, std::vector<Value> items, Scope* outer);
  /// Runs a block in a scope of its own inside `outer` and returns what it wrote.
  Text capture(const Block& block, Scope* outer);
  void emit(const Text& text);

  Scope* new_scope(Scope* parent);
  const Value* find(Symbol symbol) const;
  void set(Symbol symbol, Value value);
  void assign(const Target& target, const Value& value);

  const Ast& ast_;
  Runtime& runtime_;
  std::deque<Scope> scopes_;  // All that were made, since a macro may refer to any of them later.
  Scope* scope_;
  Text* out_ = nullptr;
};

}  // namespace mneme::jinja
