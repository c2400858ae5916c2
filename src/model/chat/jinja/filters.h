#pragma once

#include <string_view>

#include "model/chat/jinja/runtime.h"

namespace mneme::jinja {

/// `value | name(args)`.
using Filter = Value (*)(Runtime&, const Value& value, const CallArgs& args);
/// The filter of that name; null when there is none.
Filter find_filter(std::string_view name);

/// `value is name(args)`.
using Test = bool (*)(Runtime&, const Value& value, const CallArgs& args);
/// The test of that name; null when there is none.
Test find_test(std::string_view name);

/// Filters by what they work on; each returns null for a name that is not its own.
Filter find_text_filter(std::string_view name);
Filter find_sequence_filter(std::string_view name);
Filter find_number_filter(std::string_view name);

/// The attribute (or item) that `map(attribute=...)` and its like name: a key, a position, or several joined by dots.
Value attribute_path(Runtime& runtime, const Value& value, const Value& path);

/// Value to compare instead of `value`: strings in lower case unless `case_sensitive`.
Value sort_key(Runtime& runtime, const Value& value, bool case_sensitive);

}  // namespace mneme::jinja
