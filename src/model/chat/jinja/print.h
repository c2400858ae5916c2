#pragma once

#include <string>

#include "base/json.h"
#include "model/chat/jinja/runtime.h"

namespace mneme::jinja {

/// The text of a value as `{{ value }}` and Python's str() print it: nothing for undefined, "True", "None", "1.0",
/// containers with their elements in repr() form.
TextPtr to_text(Runtime& runtime, const Value& value);

/// Python's repr(): strings in quotes.
Text repr(Runtime& runtime, const Value& value);

/// Shortest decimal form that reads back as the same number, as Python writes it ("1.0", "1e-05", "inf").
std::string float_text(double number);
std::string int_text(Int number);

/// Layout of a JSON text. Without indent everything is on one line.
struct JsonLayout {
  bool multi_line = false;
  std::string indent;  ///< One level.
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool ascii_only = false;
  bool sort_keys = false;
};

/// Python's json.dumps(): keys in their order, whole numbers exact, no HTML escapes. When any string inside came from
/// data, the whole result counts as data. Fails for values that JSON cannot hold.
Text to_json_text(Runtime& runtime, const Value& value, const JsonLayout& layout);

/// A JSON document as a value; its strings are marked as data when `is_data`. Fails for nesting deeper than
/// kMaxValueDepth.
Value from_json(Runtime& runtime, const Json& json, bool is_data);

}  // namespace mneme::jinja
