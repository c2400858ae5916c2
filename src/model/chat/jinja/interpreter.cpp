#include "model/chat/jinja/interpreter.h"

#include <algorithm>
#include <variant>

#include "model/chat/jinja/functions.h"
#include "model/chat/jinja/loop_state.h"
#include "model/chat/jinja/operators.h"
#include "model/chat/jinja/print.h"

namespace mneme::jinja {

/// Makes another scope the current one while it lives.
class Interpreter::ScopeChange {
 public:
  ScopeChange(Interpreter& interpreter, Scope* scope) : interpreter_(interpreter), outer_(interpreter.scope_) {
    interpreter_.scope_ = scope;
  }
  ScopeChange(const ScopeChange&) = delete;
  ScopeChange& operator=(const ScopeChange&) = delete;
  ~ScopeChange() { interpreter_.scope_ = outer_; }

 private:
  Interpreter& interpreter_;
  Scope* outer_;
};

Interpreter::Interpreter(const Ast& ast, Runtime& runtime) : ast_(ast), runtime_(runtime) {
  Scope* globals = new_scope(nullptr);
  scope_ = globals;
  for (const auto& [name, function] : global_functions(runtime)) define(name, function);
  scope_ = new_scope(globals);
}

void Interpreter::define(std::string_view name, Value value) {
  const auto symbol = std::find(ast_.symbol_names.begin(), ast_.symbol_names.end(), name);
  if (symbol != ast_.symbol_names.end()) {
    set(static_cast<Symbol>(symbol - ast_.symbol_names.begin()), std::move(value));
  }
}

Text Interpreter::run() {
  Text output;
  out_ = &output;
  execute(ast_.body);
  out_ = nullptr;
  return output;
}

Scope* Interpreter::new_scope(Scope* parent) {
  runtime_.charge(kBytesPerStep);
  scopes_.push_back({parent, {}});
  return &scopes_.back();
}

const Value* Interpreter::find(Symbol symbol) const {
  for (const Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    for (const auto& [candidate, value] : scope->variables) {
      if (candidate == symbol) return &value;
    }
  }
  return nullptr;
}

void Interpreter::set(Symbol symbol, Value value) {
  for (auto& [candidate, old] : scope_->variables) {
    if (candidate != symbol) continue;
    old = std::move(value);
    return;
  }
  scope_->variables.emplace_back(symbol, std::move(value));
}

void Interpreter::assign(const Target& target, const Value& value) {
  if (!target.elements.empty()) {
    const std::vector<Value> parts = elements(runtime_, value);
    if (parts.size() != target.elements.size()) {
      runtime_.fail("cannot unpack {} values into {} names", parts.size(), target.elements.size());
    }
    for (size_t i = 0; i < parts.size(); ++i) assign(target.elements[i], parts[i]);
    return;
  }
  if (target.attribute.empty()) {
    set(target.symbol, value);
    return;
  }
  const Value* holder = find(target.symbol);
  auto* space = holder != nullptr && holder->is_other() ? dynamic_cast<Namespace*>(&holder->as_other()) : nullptr;
  if (space == nullptr) runtime_.fail("only attributes of a namespace can be set, '{}' is none", target.name);
  space->set(target.attribute, value);
}

void Interpreter::emit(const Text& text) {
  const size_t limit = runtime_.limits().output_bytes;
  if (text.size() > limit - std::min(limit, out_->size())) runtime_.fail("the output is longer than {} bytes", limit);
  runtime_.charge(text.cost());
  out_->append(text);
}

Text Interpreter::capture(const Block& block, Scope* outer) {
  const ScopeChange change(*this, new_scope(outer));
  Text written;
  Text* const output = std::exchange(out_, &written);
  execute(block);
  out_ = output;
  return written;
}

Value Interpreter::call_macro(const MacroDefinition& definition, Scope* closure, CallArgs& args) {
  const ScopeChange change(*this, new_scope(closure));
  std::vector<bool> given(definition.parameters.size(), false);
  std::vector<Value> extra;
  for (size_t i = 0; i < args.positional.size(); ++i) {
    if (i < given.size()) {
      set(definition.parameters[i].symbol, args.positional[i]);
      given[i] = true;
    } else {
      extra.push_back(args.positional[i]);
    }
  }
  auto* named = runtime_.make<Dict>();
  for (const auto& [name, value] : args.named) {
    size_t i = 0;
    while (i < given.size() && definition.parameters[i].name != name) ++i;
    if (i < given.size()) {
      if (given[i]) runtime_.fail("macro '{}' got two values for '{}'", definition.name, name);
      set(definition.parameters[i].symbol, value);
      given[i] = true;
    } else if (name == "caller") {
      set(kCallerSymbol, value);
    } else {
      named->set(Value(std::string_view(name)), value);
    }
  }
  set(kVarargsSymbol, runtime_.make_list(std::move(extra), true));
  set(kKwargsSymbol, named);
  for (size_t i = 0; i < given.size(); ++i) {
    const Parameter& parameter = definition.parameters[i];
    if (given[i]) continue;
    set(parameter.symbol,
        parameter.fallback == nullptr ? Value(Undefined{&parameter.name}) : evaluate(*parameter.fallback));
  }
  return capture(definition.body, scope_);
}

Value Interpreter::recurse(const For& loop, Scope* outer, int depth, const Value& iterable) {
  const ScopeChange change(*this, outer);
  Text written;
  Text* const output = std::exchange(out_, &written);
  run_loop(loop, elements(runtime_, iterable), outer, depth);
  out_ = output;
  return written;
}

Interpreter::Flow Interpreter::execute(const Block& block) {
  const auto level = runtime_.enter_evaluation();
  for (const Statement& statement : block) {
    runtime_.step(statement.line);
    const Flow flow = std::visit([&](const auto& node) { return execute_node(node); }, statement.node);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_node(const TextOutput& node) {
  emit(*node.text);
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_node(const Output& node) {
  emit(*to_text(runtime_, evaluate(*node.value)));
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_node(const If& node) {
  for (const auto& [condition, block] : node.branches) {
    if (evaluate(*condition).truthy()) return execute(block);
  }
  return execute(node.otherwise);
}

Interpreter::Flow Interpreter::execute_node(const For& node) {
  return run_loop(node, elements(runtime_, evaluate(*node.iterable)), scope_, 0);
}

std::vector<Value> Interpreter::matching_items(const For& loop, std::vector<Value> items, Scope* outer) {
  std::vector<Value> kept;
  for (Value& item : items) {
    const ScopeChange change(*this, new_scope(outer));
    assign(loop.target, item);
    if (evaluate(*loop.condition).truthy()) kept.push_back(std::move(item));
  }
  return kept;
}

Interpreter::Flow Interpreter::run_loop(const For& loop, std::vector<Value> items, Scope* outer, int depth) {
  if (loop.condition != nullptr) items = matching_items(loop, std::move(items), outer);
  if (items.empty()) {
    const ScopeChange change(*this, new_scope(outer));
    return execute(loop.otherwise);
  }
  auto* state = runtime_.make<LoopState>(*this, loop, outer, depth, std::move(items));
  for (size_t i = 0; i < state->items().size(); ++i) {
    const ScopeChange change(*this, new_scope(outer));
    state->move_to(i);
    assign(loop.target, state->items()[i]);
    set(kLoopSymbol, static_cast<Object*>(state));
    if (execute(loop.body) == Flow::kBreak) break;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_node(const Set& node) {
  assign(node.target, evaluate(*node.value));
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_node(const SetBlock& node) {
  assign(node.target, apply_filters(node.filters, capture(node.body, scope_)));
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_node(const MacroDefinition& node) {
  set(node.symbol, static_cast<Object*>(runtime_.make<Macro>(*this, node, scope_)));
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_node(const CallBlock& node) {
  const Value caller = static_cast<Object*>(runtime_.make<Macro>(*this, node.caller, scope_));
  emit(*to_text(runtime_, call_with(std::get<Call>(node.call->node), &caller)));
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_node(const FilterBlock& node) {
  emit(*to_text(runtime_, apply_filters(node.filters, capture(node.body, scope_))));
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_node(const With& node) {
  std::vector<Value> values;
  for (const auto& [target, value] : node.assignments) values.push_back(evaluate(*value));
  const ScopeChange change(*this, new_scope(scope_));
  for (size_t i = 0; i < values.size(); ++i) assign(node.assignments[i].first, values[i]);
  return execute(node.body);
}

Interpreter::Flow Interpreter::execute_node(const Do& node) {
  evaluate(*node.value);
  return Flow::kNext;
}

}  // namespace mneme::jinja
