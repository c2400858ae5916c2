#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "model/chat/jinja/text.h"

namespace mneme::jinja {

class Runtime;
class Value;
struct CallArgs;

/// Whole numbers are exact: wide enough for every 64-bit number of JSON, signed or not, and arithmetic that leaves the
/// range is an error.
__extension__ typedef __int128 Int;

/// What a lookup gives that found nothing: prints as nothing, is false, and most other uses are errors. `name` is what
/// was looked up, owned by the template, or null.
struct Undefined {
  const std::string* name = nullptr;
};

/// Whatever is shared by reference: containers, namespaces, macros, loop state. Owned by the Heap of one rendering, so
/// that values may refer to each other in circles.
class Object {
 public:
  virtual ~Object() = default;
  virtual std::string_view type_name() const = 0;
  virtual bool callable() const { return false; }
  /// The value of `object.name`; nothing when there is none.
  virtual std::optional<Value> attribute(Runtime& runtime, std::string_view name);
  /// The result of `object.name(args)`; nothing when there is no such method.
  virtual std::optional<Value> call_method(Runtime& runtime, std::string_view name, CallArgs& args);
  /// The result of `object(args)`; an error unless callable().
  virtual Value call(Runtime& runtime, CallArgs& args);
};

struct List;
class Dict;

/// A value of a template: undefined, none, a truth value, a number, a string or a reference to an Object. Cheap to
/// copy.
class Value {
 public:
  Value() = default;
  Value(Undefined undefined) : data_(undefined) {}           // NOLINT: implicit on purpose, as are those below
  Value(std::nullptr_t) : data_(nullptr) {}                  // NOLINT
  Value(bool truth) : data_(truth) {}                        // NOLINT
  Value(Int number) : data_(number) {}                       // NOLINT
  Value(int number) : data_(Int{number}) {}                  // NOLINT
  Value(size_t number) : data_(static_cast<Int>(number)) {}  // NOLINT
  Value(double number) : data_(number) {}                    // NOLINT
  Value(TextPtr text) : data_(std::move(text)) {}            // NOLINT
  Value(Text text) : data_(make_text(std::move(text))) {}    // NOLINT
  Value(std::string_view text) : data_(make_text(std::string(text))) {}  // NOLINT
  Value(const char* text) : data_(make_text(text)) {}                    // NOLINT
  Value(List* list) : data_(list) {}                                     // NOLINT
  Value(Dict* dict) : data_(dict) {}                                     // NOLINT
  Value(Object* object) : data_(object) {}                               // NOLINT

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<std::nullptr_t>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_int() const { return std::holds_alternative<Int>(data_); }
  bool is_float() const { return std::holds_alternative<double>(data_); }
  bool is_string() const { return std::holds_alternative<TextPtr>(data_); }
  bool is_list() const { return std::holds_alternative<List*>(data_); }
  bool is_dict() const { return std::holds_alternative<Dict*>(data_); }
  /// An Object that is neither list nor dict.
  bool is_other() const { return std::holds_alternative<Object*>(data_); }
  /// int, float or bool, which counts as 0 or 1.
  bool is_number() const { return is_int() || is_float() || is_bool(); }
  bool is_integral() const { return is_int() || is_bool(); }

  const Undefined& as_undefined() const { return std::get<Undefined>(data_); }
  /// REQUIRES is_integral().
  Int as_int() const { return is_bool() ? Int{std::get<bool>(data_)} : std::get<Int>(data_); }
  /// REQUIRES is_number().
  double as_double() const { return is_float() ? std::get<double>(data_) : static_cast<double>(as_int()); }
  bool as_bool() const { return std::get<bool>(data_); }
  const TextPtr& as_text() const { return std::get<TextPtr>(data_); }
  TextPtr& as_text() { return std::get<TextPtr>(data_); }
  std::string_view as_view() const { return as_text()->view(); }
  List& as_list() const { return *std::get<List*>(data_); }
  Dict& as_dict() const { return *std::get<Dict*>(data_); }
  Object& as_other() const { return *std::get<Object*>(data_); }
  /// The Object behind a list, dict or other object; null for all else.
  Object* object() const;

  /// Python's name of the type, for messages: "int", "str", "dict", ...
  std::string_view type_name() const;
  /// Python's truth value.
  bool truthy() const;

 private:
  std::variant<Undefined, std::nullptr_t, bool, Int, double, TextPtr, List*, Dict*, Object*> data_;
};

/// A list or a tuple.
struct List final : Object {
  explicit List(std::vector<Value> values = {}, bool tuple = false) : items(std::move(values)), is_tuple(tuple) {}
  std::string_view type_name() const override { return is_tuple ? "tuple" : "list"; }
  std::optional<Value> call_method(Runtime& runtime, std::string_view name, CallArgs& args) override;

  std::vector<Value> items;
  bool is_tuple;
};

/// A mapping that keeps the order of insertion. Keys are strings, numbers, truth values or none; as in Python, 1, 1.0
/// and true are the same key.
class Dict final : public Object {
 public:
  using Entry = std::pair<Value, Value>;

  std::string_view type_name() const override { return "dict"; }
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override;
  std::optional<Value> call_method(Runtime& runtime, std::string_view name, CallArgs& args) override;

  static bool is_key(const Value& value);
  const std::vector<Entry>& entries() const { return entries_; }
  /// REQUIRES is_key(key), as do all below. Null when the key is missing.
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  void set(const Value& key, Value value);
  bool erase(const Value& key);
  void clear();

 private:
  std::optional<size_t> position(const Value& key) const;

  std::vector<Entry> entries_;
  std::unordered_map<std::string, size_t> index_;  // Used once the dict is large.
};

/// What `namespace()` gives: attributes that assignments inside loops can change.
class Namespace final : public Object {
 public:
  std::string_view type_name() const override { return "namespace"; }
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override;
  void set(std::string_view name, Value value);
  const std::vector<std::pair<std::string, Value>>& attributes() const { return attributes_; }

 private:
  std::vector<std::pair<std::string, Value>> attributes_;
};

}  // namespace mneme::jinja
