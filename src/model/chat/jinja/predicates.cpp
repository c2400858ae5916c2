#include <unordered_map>

#include "model/chat/jinja/filters.h"
#include "model/chat/jinja/operators.h"
#include "model/chat/jinja/print.h"
#include "model/chat/jinja/string_methods.h"

namespace mneme::jinja {
namespace {

template <bool (*kHolds)(const Value&)>
bool kind_test(Runtime& runtime, const Value& value, const CallArgs& args) {
  BoundArgs(runtime, "a test", args, {});
  return kHolds(value);
}

bool is_defined(const Value& value) {
  return !value.is_undefined();
}
bool is_undefined(const Value& value) {
  return value.is_undefined();
}
bool is_none(const Value& value) {
  return value.is_none();
}
bool is_string(const Value& value) {
  return value.is_string();
}
bool is_mapping(const Value& value) {
  return value.is_dict();
}
bool is_number(const Value& value) {
  return value.is_number();
}
bool is_integer(const Value& value) {
  return value.is_int();
}
bool is_float(const Value& value) {
  return value.is_float();
}
bool is_boolean(const Value& value) {
  return value.is_bool();
}
bool is_true(const Value& value) {
  return value.is_bool() && value.as_bool();
}
bool is_false(const Value& value) {
  return value.is_bool() && !value.as_bool();
}
bool is_callable(const Value& value) {
  return value.is_other() && value.as_other().callable();
}
bool never(const Value&) {
  return false;
}

template <CompareOp kOp>
bool compare_test(Runtime& runtime, const Value& value, const CallArgs& args) {
  const BoundArgs bound(runtime, "a comparison test", args, {"other"});
  return compare(runtime, kOp, value, bound.required(0));
}

Int whole_number(Runtime& runtime, const Value& value) {
  if (value.is_undefined()) runtime.fail_undefined(value.as_undefined());
  if (!value.is_integral()) runtime.fail("expected a whole number, got {}", value.type_name());
  return value.as_int();
}

bool divisible_test(Runtime& runtime, const Value& value, const CallArgs& args) {
  const BoundArgs bound(runtime, "divisibleby", args, {"num"});
  const Int divisor = whole_number(runtime, bound.required(0));
  if (divisor == 0) runtime.fail("division by zero");
  return divisor == -1 || whole_number(runtime, value) % divisor == 0;
}

template <bool kOdd>
bool parity_test(Runtime& runtime, const Value& value, const CallArgs& args) {
  BoundArgs(runtime, kOdd ? "odd" : "even", args, {});
  return (whole_number(runtime, value) % 2 != 0) == kOdd;
}

template <bool kUpper>
bool case_test(Runtime& runtime, const Value& value, const CallArgs& args) {
  return call_string_method(runtime, *to_text(runtime, value), kUpper ? "isupper" : "islower", args)->truthy();
}

/// The same object, or equal values of a kind that has no identity of its own.
bool same_test(Runtime& runtime, const Value& value, const CallArgs& args) {
  const BoundArgs bound(runtime, "sameas", args, {"other"});
  const Value& other = bound.required(0);
  if (value.object() != nullptr || other.object() != nullptr) return value.object() == other.object();
  return value.type_name() == other.type_name() && equals(runtime, value, other);
}

template <auto kFind>
bool exists_test(Runtime& runtime, const Value& value, const CallArgs& args) {
  BoundArgs(runtime, "a test of names", args, {});
  return value.is_string() && kFind(value.as_view()) != nullptr;
}

const std::unordered_map<std::string_view, Test> kTests = {
    {"!=", compare_test<CompareOp::kNotEqual>},
    {"<", compare_test<CompareOp::kLess>},
    {"<=", compare_test<CompareOp::kLessEqual>},
    {"==", compare_test<CompareOp::kEqual>},
    {">", compare_test<CompareOp::kGreater>},
    {">=", compare_test<CompareOp::kGreaterEqual>},
    {"boolean", kind_test<is_boolean>},
    {"callable", kind_test<is_callable>},
    {"defined", kind_test<is_defined>},
    {"divisibleby", divisible_test},
    {"eq", compare_test<CompareOp::kEqual>},
    {"equalto", compare_test<CompareOp::kEqual>},
    {"escaped", kind_test<never>},
    {"even", parity_test<false>},
    {"false", kind_test<is_false>},
    {"filter", exists_test<find_filter>},
    {"float", kind_test<is_float>},
    {"ge", compare_test<CompareOp::kGreaterEqual>},
    {"greaterthan", compare_test<CompareOp::kGreater>},
    {"gt", compare_test<CompareOp::kGreater>},
    {"in", compare_test<CompareOp::kIn>},
    {"integer", kind_test<is_integer>},
    {"iterable", kind_test<is_iterable>},
    {"le", compare_test<CompareOp::kLessEqual>},
    {"lessthan", compare_test<CompareOp::kLess>},
    {"lower", case_test<false>},
    {"lt", compare_test<CompareOp::kLess>},
    {"mapping", kind_test<is_mapping>},
    {"ne", compare_test<CompareOp::kNotEqual>},
    {"none", kind_test<is_none>},
    {"number", kind_test<is_number>},
    {"odd", parity_test<true>},
    {"sameas", same_test},
    {"sequence", kind_test<is_iterable>},  // Everything here that can be visited has a length and items.
    {"string", kind_test<is_string>},
    {"test", exists_test<find_test>},
    {"true", kind_test<is_true>},
    {"undefined", kind_test<is_undefined>},
    {"upper", case_test<true>},
};

}  // namespace

Test find_test(std::string_view name) {
  const auto found = kTests.find(name);
  return found == kTests.end() ? nullptr : found->second;
}

}  // namespace mneme::jinja
