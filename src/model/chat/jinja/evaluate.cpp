#include <variant>

#include "model/chat/jinja/interpreter.h"
#include "model/chat/jinja/operators.h"
#include "model/chat/jinja/string_methods.h"

namespace mneme::jinja {

Value Interpreter::evaluate(const Expr& expr) {
  runtime_.step(expr.line);
  const auto level = runtime_.enter_evaluation();
  return std::visit([&](const auto& node) { return evaluate_node(node); }, expr.node);
}

Value Interpreter::evaluate_node(const Variable& node) {
  const Value* value = find(node.symbol);
  return value == nullptr ? Value(Undefined{&node.name}) : *value;
}

Value Interpreter::evaluate_node(const ListLiteral& node) {
  std::vector<Value> items;
  for (const ExprPtr& item : node.items) items.push_back(evaluate(*item));
  return runtime_.make_list(std::move(items), node.is_tuple);
}

Value Interpreter::evaluate_node(const DictLiteral& node) {
  auto* dict = runtime_.make<Dict>();
  for (const auto& [key_expr, value_expr] : node.entries) {
    const Value key = evaluate(*key_expr);
    if (!Dict::is_key(key)) runtime_.fail("a {} cannot be a key", key.type_name());
    runtime_.charge_values(2);
    dict->set(key, evaluate(*value_expr));
  }
  return dict;
}

Value Interpreter::evaluate_node(const Attribute& node) {
  return get_attribute(runtime_, evaluate(*node.object), node.name);
}

Value Interpreter::evaluate_node(const Item& node) {
  const Value object = evaluate(*node.object);
  return get_item(runtime_, object, evaluate(*node.index));
}

Value Interpreter::evaluate_node(const Slice& node) {
  const Value object = evaluate(*node.object);
  const auto bound = [&](const ExprPtr& expr) { return expr == nullptr ? Value(nullptr) : evaluate(*expr); };
  const Value start = bound(node.start);
  const Value stop = bound(node.stop);
  return get_slice(runtime_, object, start, stop, bound(node.step));
}

Value Interpreter::evaluate_node(const Call& node) {
  return call_with(node, nullptr);
}

Value Interpreter::evaluate_node(const FilterUse& node) {
  return apply_filter(node, evaluate(*node.input));
}

Value Interpreter::evaluate_node(const TestUse& node) {
  if (node.test == nullptr) runtime_.fail_unsupported("no test named '{}'", node.name);
  const Value input = evaluate(*node.input);
  const CallArgs args = evaluate_arguments(node.arguments);
  return node.test(runtime_, input, args) != node.negated;
}

Value Interpreter::evaluate_node(const Unary& node) {
  const Value operand = evaluate(*node.operand);
  if (node.op == Unary::Op::kNot) return !operand.truthy();
  if (node.op == Unary::Op::kNegate) return negate(runtime_, operand);
  if (operand.is_undefined()) runtime_.fail_undefined(operand.as_undefined());
  if (!operand.is_number()) runtime_.fail("'+' does not work on {}", operand.type_name());
  return operand.is_bool() ? Value(operand.as_int()) : operand;
}

Value Interpreter::evaluate_node(const BinaryChain& node) {
  const uint32_t line = runtime_.line();
  Value value = evaluate(*node.first);
  for (const auto& [op, operand_expr] : node.rest) {
    const Value operand = evaluate(*operand_expr);
    runtime_.at_line(line);
    value = apply(runtime_, op, std::move(value), operand);
  }
  return value;
}

Value Interpreter::evaluate_node(const Comparison& node) {
  Value left = evaluate(*node.first);
  for (const auto& [op, operand_expr] : node.rest) {
    Value right = evaluate(*operand_expr);
    if (!compare(runtime_, op, left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Interpreter::evaluate_node(const Logical& node) {
  Value value;
  for (const ExprPtr& operand : node.operands) {
    value = evaluate(*operand);
    if (value.truthy() != node.is_and) break;
  }
  return value;
}

Value Interpreter::evaluate_node(const Conditional& node) {
  if (evaluate(*node.condition).truthy()) return evaluate(*node.when_true);
  return node.when_false == nullptr ? Value(Undefined{}) : evaluate(*node.when_false);
}

CallArgs Interpreter::evaluate_arguments(const Arguments& arguments) {
  CallArgs args;
  for (const Argument& argument : arguments) {
    Value value = evaluate(*argument.value);
    switch (argument.kind) {
      case Argument::Kind::kPositional:
        args.positional.push_back(std::move(value));
        break;
      case Argument::Kind::kNamed:
        args.named.emplace_back(argument.name, std::move(value));
        break;
      case Argument::Kind::kSpreadList:
        for (Value& item : elements(runtime_, value)) args.positional.push_back(std::move(item));
        break;
      case Argument::Kind::kSpreadDict:
        if (!value.is_dict()) runtime_.fail("'**' needs a mapping, got {}", value.type_name());
        for (const auto& [key, item] : value.as_dict().entries()) {
          if (!key.is_string()) runtime_.fail("'**' needs string keys, got {}", key.type_name());
          runtime_.charge(key.as_text()->cost() + sizeof(Value));
          args.named.emplace_back(key.as_view(), item);
        }
    }
  }
  return args;
}

Value Interpreter::call_with(const Call& call, const Value* caller) {
  const uint32_t line = runtime_.line();
  const auto* method = std::get_if<Attribute>(&call.callee->node);
  const Value target = evaluate(method != nullptr ? *method->object : *call.callee);
  CallArgs args = evaluate_arguments(call.arguments);
  if (caller != nullptr) args.named.emplace_back("caller", *caller);
  runtime_.at_line(line);
  const auto level = runtime_.enter_call();
  if (target.is_undefined()) runtime_.fail_undefined(target.as_undefined());
  if (method != nullptr) return call_method(target, method->name, args);
  if (!target.is_other()) runtime_.fail("'{}' object is not callable", target.type_name());
  return target.as_other().call(runtime_, args);
}

Value Interpreter::call_method(const Value& object, const std::string& name, CallArgs& args) {
  if (object.is_string()) {
    if (auto result = call_string_method(runtime_, *object.as_text(), name, args)) return *result;
  } else if (Object* target = object.object()) {
    if (auto result = target->call_method(runtime_, name, args)) return *result;
    const auto member = target->attribute(runtime_, name);
    if (member && member->is_other()) return member->as_other().call(runtime_, args);
  }
  runtime_.fail_unsupported("'{}' object has no method '{}'", object.type_name(), name);
}

Value Interpreter::apply_filter(const FilterUse& use, const Value& input) {
  if (use.filter == nullptr) runtime_.fail_unsupported("no filter named '{}'", use.name);
  const uint32_t line = runtime_.line();
  const CallArgs args = evaluate_arguments(use.arguments);
  runtime_.at_line(line);
  return use.filter(runtime_, input, args);
}

Value Interpreter::apply_filters(const std::vector<FilterUse>& filters, Value value) {
  for (const FilterUse& use : filters) value = apply_filter(use, value);
  return value;
}

}  // namespace mneme::jinja
