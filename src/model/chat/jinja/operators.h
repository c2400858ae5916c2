#pragma once

#include <optional>

#include "model/chat/jinja/runtime.h"

namespace mneme::jinja {

enum class BinaryOp { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower, kConcat };
enum class CompareOp { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };

/// Arithmetic and joining with Python's rules: exact whole numbers, `/` gives a float, `%` has the sign of the divisor,
/// strings and lists are added and multiplied. `left` is consumed, so that building a long string piece by piece does
/// not copy it each time.
Value apply(Runtime& runtime, BinaryOp op, Value left, const Value& right);
Value negate(Runtime& runtime, const Value& value);

bool compare(Runtime& runtime, CompareOp op, const Value& left, const Value& right);
/// Python's ==: numbers by value, containers element by element.
bool equals(Runtime& runtime, const Value& left, const Value& right);
/// Python's <: fails for values that have no order.
bool less(Runtime& runtime, const Value& left, const Value& right);
/// `item in container`.
bool contains(Runtime& runtime, const Value& container, const Value& item);

/// `object.name`: the key of that name in a dict, the attribute of other objects, else undefined. Fails on undefined.
Value get_attribute(Runtime& runtime, const Value& object, const std::string& name);
/// `object[index]`: element, character, key; undefined when there is none. Fails on undefined.
Value get_item(Runtime& runtime, const Value& object, const Value& index);
/// `object[start:stop:step]` of a string, list or tuple, each bound may be none; undefined for other values.
Value get_slice(Runtime& runtime, const Value& object, const Value& start, const Value& stop, const Value& step);

/// The elements that a for loop visits: of a list, the characters of a string, the keys of a dict, nothing for
/// undefined.
std::vector<Value> elements(Runtime& runtime, const Value& value);
/// Whether elements() would succeed.
bool is_iterable(const Value& value);
/// len() of a string, list, dict or undefined; nothing for other values.
std::optional<size_t> length_of(Runtime& runtime, const Value& value);

}  // namespace mneme::jinja
