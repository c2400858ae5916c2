#include "model/chat/jinja/operators.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/chat/jinja/print.h"
#include "model/chat/jinja/string_format.h"

namespace mneme::jinja {
namespace {

constexpr std::string_view kOpNames[] = {"+", "-", "*", "/", "//", "%", "**", "~"};

[[noreturn]] void fail_operands(Runtime& runtime, std::string_view op, const Value& left, const Value& right) {
  if (left.is_undefined()) runtime.fail_undefined(left.as_undefined());
  if (right.is_undefined()) runtime.fail_undefined(right.as_undefined());
  runtime.fail("'{}' does not work between {} and {}", op, left.type_name(), right.type_name());
}

/// left + right for strings. The bytes of `left` are reused when nothing else refers to them.
Value append_text(Runtime& runtime, Value left, const Text& right) {
  TextPtr& text = left.as_text();
  if (text.use_count() == 1) {
    runtime.charge(right.cost());
    text->append(right);
    return left;
  }
  runtime.charge(text->cost() + right.cost());
  Text joined = *text;
  joined.append(right);
  return joined;
}

Value add_lists(Runtime& runtime, const List& left, const List& right) {
  std::vector<Value> items = left.items;
  items.insert(items.end(), right.items.begin(), right.items.end());
  return runtime.make_list(std::move(items), left.is_tuple);
}

Value repeat(Runtime& runtime, const Value& sequence, Int count) {
  const auto limit = static_cast<Int>(std::numeric_limits<uint32_t>::max());
  const auto times = static_cast<size_t>(std::clamp(count, Int{0}, limit));
  if (sequence.is_string()) {
    const Text& text = *sequence.as_text();
    runtime.charge_many(text.cost(), times);
    Text repeated;
    for (size_t i = 0; i < times && !text.empty(); ++i) repeated.append(text);
    return repeated;
  }
  const List& list = sequence.as_list();
  runtime.charge_many(list.items.size() * sizeof(Value), times);
  std::vector<Value> items;
  for (size_t i = 0; i < times && !list.items.empty(); ++i) {
    items.insert(items.end(), list.items.begin(), list.items.end());
  }
  return runtime.make<List>(std::move(items), list.is_tuple);
}

Int floor_divide(Int a, Int b) {
  const Int quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

std::optional<Int> integer_power(Int base, Int exponent) {
  Int result = 1;
  while (exponent > 0) {
    if (exponent % 2 == 1 && __builtin_mul_overflow(result, base, &result)) return std::nullopt;
    exponent /= 2;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return std::nullopt;
  }
  return result;
}

Value integer_arithmetic(Runtime& runtime, BinaryOp op, Int a, Int b) {
  Int result = 0;
  bool overflow = false;
  // The one quotient outside the range; everything else fits.
  const bool quotient_overflows = b == -1 && a == std::numeric_limits<Int>::min();
  switch (op) {
    case BinaryOp::kAdd:
      overflow = __builtin_add_overflow(a, b, &result);
      break;
    case BinaryOp::kSubtract:
      overflow = __builtin_sub_overflow(a, b, &result);
      break;
    case BinaryOp::kMultiply:
      overflow = __builtin_mul_overflow(a, b, &result);
      break;
    case BinaryOp::kFloorDivide:
      overflow = quotient_overflows;
      if (!overflow) result = floor_divide(a, b);
      break;
    case BinaryOp::kModulo:
      if (!quotient_overflows) result = a - floor_divide(a, b) * b;
      break;
    default: {
      const auto power = integer_power(a, b);
      overflow = !power;
      result = power.value_or(0);
    }
  }
  if (overflow) runtime.fail("whole number out of range in '{}'", kOpNames[static_cast<size_t>(op)]);
  return result;
}

/// Quotient and rest as Python's floats give them: the rest is exact and has the sign of the divisor.
struct FloorDivision {
  double quotient, rest;
};

FloorDivision floor_divide(double a, double b) {
  double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest == 0) {
    rest = std::copysign(0.0, b);
  } else if ((b < 0) != (rest < 0)) {
    rest += b;
    quotient -= 1;
  }
  if (quotient == 0) return {std::copysign(0.0, a / b), rest};
  const double whole = std::floor(quotient);
  return {quotient - whole > 0.5 ? whole + 1 : whole, rest};
}

Value arithmetic(Runtime& runtime, BinaryOp op, const Value& left, const Value& right) {
  const bool divides = op == BinaryOp::kDivide || op == BinaryOp::kFloorDivide || op == BinaryOp::kModulo;
  if (divides && right.as_double() == 0) runtime.fail("division by zero");
  const bool negative_power = op == BinaryOp::kPower && right.as_double() < 0;
  if (left.is_integral() && right.is_integral() && op != BinaryOp::kDivide && !negative_power) {
    return integer_arithmetic(runtime, op, left.as_int(), right.as_int());
  }
  const double a = left.as_double();
  const double b = right.as_double();
  switch (op) {
    case BinaryOp::kAdd:
      return a + b;
    case BinaryOp::kSubtract:
      return a - b;
    case BinaryOp::kMultiply:
      return a * b;
    case BinaryOp::kDivide:
      return a / b;
    case BinaryOp::kFloorDivide:
      return floor_divide(a, b).quotient;
    case BinaryOp::kModulo:
      return floor_divide(a, b).rest;
    default:
      if (a == 0 && b < 0) runtime.fail("division by zero");
      return std::pow(a, b);
  }
}

/// -1, 0 or 1 for numbers; whole numbers exactly.
int order_of_numbers(const Value& left, const Value& right) {
  if (left.is_integral() && right.is_integral()) {
    return left.as_int() < right.as_int() ? -1 : static_cast<int>(left.as_int() > right.as_int());
  }
  return left.as_double() < right.as_double() ? -1 : static_cast<int>(left.as_double() > right.as_double());
}

bool equals_at(Runtime& runtime, const Value& left, const Value& right, int depth);

bool lists_equal(Runtime& runtime, const List& left, const List& right, int depth) {
  if (left.is_tuple != right.is_tuple || left.items.size() != right.items.size()) return false;
  for (size_t i = 0; i < left.items.size(); ++i) {
    if (!equals_at(runtime, left.items[i], right.items[i], depth + 1)) return false;
  }
  return true;
}

bool dicts_equal(Runtime& runtime, const Dict& left, const Dict& right, int depth) {
  if (left.entries().size() != right.entries().size()) return false;
  for (const auto& [key, value] : left.entries()) {
    runtime.charge(sizeof(Value));
    const Value* other = right.find(key);
    if (other == nullptr || !equals_at(runtime, value, *other, depth + 1)) return false;
  }
  return true;
}

bool equals_at(Runtime& runtime, const Value& left, const Value& right, int depth) {
  if (depth > kMaxValueDepth) runtime.fail("cannot compare containers nested deeper than {}", kMaxValueDepth);
  runtime.charge(sizeof(Value));
  if (left.is_number() && right.is_number()) {
    if (left.is_integral() && right.is_integral()) return left.as_int() == right.as_int();
    return left.as_double() == right.as_double();
  }
  if (left.is_string() && right.is_string()) {
    if (left.as_text()->size() != right.as_text()->size()) return false;
    runtime.charge(left.as_text()->size());
    return left.as_view() == right.as_view();
  }
  if (left.is_list() && right.is_list()) return lists_equal(runtime, left.as_list(), right.as_list(), depth);
  if (left.is_dict() && right.is_dict()) return dicts_equal(runtime, left.as_dict(), right.as_dict(), depth);
  if (left.is_other() && right.is_other()) return &left.as_other() == &right.as_other();
  return (left.is_none() && right.is_none()) || (left.is_undefined() && right.is_undefined());
}

bool less_at(Runtime& runtime, const Value& left, const Value& right, std::string_view op, int depth) {
  if (depth > kMaxValueDepth) runtime.fail("cannot compare containers nested deeper than {}", kMaxValueDepth);
  runtime.charge(sizeof(Value));
  if (left.is_number() && right.is_number()) return order_of_numbers(left, right) < 0;
  if (left.is_string() && right.is_string()) {
    runtime.charge(std::min(left.as_text()->size(), right.as_text()->size()));
    return left.as_view() < right.as_view();
  }
  if (!left.is_list() || !right.is_list() || left.as_list().is_tuple != right.as_list().is_tuple) {
    fail_operands(runtime, op, left, right);
  }
  const auto& a = left.as_list().items;
  const auto& b = right.as_list().items;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (!equals_at(runtime, a[i], b[i], depth + 1)) return less_at(runtime, a[i], b[i], op, depth + 1);
  }
  return a.size() < b.size();
}

}  // namespace

Value apply(Runtime& runtime, BinaryOp op, Value left, const Value& right) {
  if (op == BinaryOp::kConcat) {
    // The text of a value that is no string is new, so that it may be appended to in place.
    Value text = left.is_string() ? std::move(left) : Value(to_text(runtime, left));
    return append_text(runtime, std::move(text), *to_text(runtime, right));
  }
  if (left.is_number() && right.is_number()) return arithmetic(runtime, op, left, right);
  if (op == BinaryOp::kAdd) {
    if (left.is_string() && right.is_string()) return append_text(runtime, std::move(left), *right.as_text());
    if (left.is_list() && right.is_list() && left.as_list().is_tuple == right.as_list().is_tuple) {
      return add_lists(runtime, left.as_list(), right.as_list());
    }
  }
  if (op == BinaryOp::kMultiply) {
    if ((left.is_string() || left.is_list()) && right.is_integral()) return repeat(runtime, left, right.as_int());
    if ((right.is_string() || right.is_list()) && left.is_integral()) return repeat(runtime, right, left.as_int());
  }
  if (op == BinaryOp::kModulo && left.is_string()) return percent_format(runtime, *left.as_text(), right);
  fail_operands(runtime, kOpNames[static_cast<size_t>(op)], left, right);
}

Value negate(Runtime& runtime, const Value& value) {
  if (value.is_float()) return -value.as_double();
  if (value.is_integral()) return integer_arithmetic(runtime, BinaryOp::kSubtract, 0, value.as_int());
  if (value.is_undefined()) runtime.fail_undefined(value.as_undefined());
  runtime.fail("'-' does not work on {}", value.type_name());
}

bool equals(Runtime& runtime, const Value& left, const Value& right) {
  return equals_at(runtime, left, right, 0);
}

bool less(Runtime& runtime, const Value& left, const Value& right) {
  return less_at(runtime, left, right, "<", 0);
}

bool compare(Runtime& runtime, CompareOp op, const Value& left, const Value& right) {
  // Not a number is neither less nor greater nor equal.
  const auto is_nan = [](const Value& value) { return value.is_float() && std::isnan(value.as_double()); };
  const bool unordered = left.is_number() && right.is_number() && (is_nan(left) || is_nan(right));
  switch (op) {
    case CompareOp::kEqual:
      return equals(runtime, left, right);
    case CompareOp::kNotEqual:
      return !equals(runtime, left, right);
    case CompareOp::kLess:
      return less_at(runtime, left, right, "<", 0);
    case CompareOp::kLessEqual:
      return !unordered && !less_at(runtime, right, left, "<=", 0);
    case CompareOp::kGreater:
      return less_at(runtime, right, left, ">", 0);
    case CompareOp::kGreaterEqual:
      return !unordered && !less_at(runtime, left, right, ">=", 0);
    case CompareOp::kIn:
      return contains(runtime, right, left);
    case CompareOp::kNotIn:
      return !contains(runtime, right, left);
  }
  return false;
}

bool contains(Runtime& runtime, const Value& container, const Value& item) {
  if (container.is_string()) {
    if (!item.is_string()) {
      if (item.is_undefined()) runtime.fail_undefined(item.as_undefined());
      runtime.fail("'in <string>' needs a string, got {}", item.type_name());
    }
    runtime.charge(container.as_text()->size());
    return find_bytes(container.as_view(), item.as_view()) != std::string_view::npos;
  }
  if (container.is_dict()) {
    if (!Dict::is_key(item)) {
      if (item.is_undefined()) return false;
      runtime.fail("a {} cannot be a key", item.type_name());
    }
    return container.as_dict().find(item) != nullptr;
  }
  if (container.is_list()) {
    const auto& items = container.as_list().items;
    return std::any_of(items.begin(), items.end(), [&](const Value& each) { return equals(runtime, each, item); });
  }
  if (container.is_undefined()) return false;
  runtime.fail("'in' does not work on {}", container.type_name());
}

}  // namespace mneme::jinja
