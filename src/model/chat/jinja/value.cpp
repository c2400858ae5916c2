#include "model/chat/jinja/value.h"

#include <algorithm>
#include <cmath>

#include "model/chat/jinja/runtime.h"

namespace mneme::jinja {
namespace {

constexpr size_t kIndexedFrom = 16;

/// One string for each class of equal keys.
std::string canonical_key(const Value& key) {
  if (key.is_string()) return fmt::format("s{}", key.as_view());
  if (key.is_none()) return "n";
  if (key.is_float()) {
    const double number = key.as_double();
    constexpr double kExactBelow = 9007199254740992.0;  // 2^53: every whole double below has an int of the same value.
    if (std::trunc(number) != number || std::abs(number) >= kExactBelow) return fmt::format("f{}", number);
    return fmt::format("i{}", static_cast<int64_t>(number));
  }
  return fmt::format("i{}", key.as_int());
}

}  // namespace

std::optional<Value> Object::attribute(Runtime&, std::string_view) {
  return std::nullopt;
}

std::optional<Value> Object::call_method(Runtime&, std::string_view, CallArgs&) {
  return std::nullopt;
}

Value Object::call(Runtime& runtime, CallArgs&) {
  runtime.fail("'{}' object is not callable", type_name());
}

Object* Value::object() const {
  if (is_list()) return &as_list();
  if (is_dict()) return &as_dict();
  return is_other() ? &as_other() : nullptr;
}

std::string_view Value::type_name() const {
  if (is_undefined()) return "undefined";
  if (is_none()) return "none";
  if (is_bool()) return "bool";
  if (is_int()) return "int";
  if (is_float()) return "float";
  if (is_string()) return "str";
  return object()->type_name();
}

bool Value::truthy() const {
  if (is_undefined() || is_none()) return false;
  if (is_integral()) return as_int() != 0;
  if (is_float()) return as_double() != 0;
  if (is_string()) return !as_text()->empty();
  if (is_list()) return !as_list().items.empty();
  return !is_dict() || !as_dict().entries().empty();
}

bool Dict::is_key(const Value& value) {
  return value.is_string() || value.is_number() || value.is_none();
}

std::optional<size_t> Dict::position(const Value& key) const {
  if (entries_.size() >= kIndexedFrom) {
    const auto found = index_.find(canonical_key(key));
    return found == index_.end() ? std::nullopt : std::optional(found->second);
  }
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Value& candidate = entries_[i].first;
    const bool same = key.is_string() ? candidate.is_string() && candidate.as_view() == key.as_view()
                                      : !candidate.is_string() && canonical_key(candidate) == canonical_key(key);
    if (same) return i;
  }
  return std::nullopt;
}

const Value* Dict::find(const Value& key) const {
  const auto found = position(key);
  return found ? &entries_[*found].second : nullptr;
}

const Value* Dict::find(std::string_view key) const {
  if (entries_.size() >= kIndexedFrom) return find(Value(key));
  for (const auto& [candidate, value] : entries_) {
    if (candidate.is_string() && candidate.as_view() == key) return &value;
  }
  return nullptr;
}

void Dict::set(const Value& key, Value value) {
  if (const auto found = position(key)) {
    entries_[*found].second = std::move(value);
    return;
  }
  entries_.emplace_back(key, std::move(value));
  if (entries_.size() == kIndexedFrom) {
    for (size_t i = 0; i < entries_.size(); ++i) index_.emplace(canonical_key(entries_[i].first), i);
  } else if (entries_.size() > kIndexedFrom) {
    index_.emplace(canonical_key(key), entries_.size() - 1);
  }
}

bool Dict::erase(const Value& key) {
  const auto found = position(key);
  if (!found) return false;
  entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(*found));
  index_.clear();
  if (entries_.size() >= kIndexedFrom) {
    for (size_t i = 0; i < entries_.size(); ++i) index_.emplace(canonical_key(entries_[i].first), i);
  }
  return true;
}

void Dict::clear() {
  entries_.clear();
  index_.clear();
}

std::optional<Value> Dict::attribute(Runtime&, std::string_view name) {
  const Value* value = find(name);
  return value == nullptr ? std::nullopt : std::optional(*value);
}

std::optional<Value> Namespace::attribute(Runtime&, std::string_view name) {
  for (const auto& [key, value] : attributes_) {
    if (key == name) return value;
  }
  return std::nullopt;
}

void Namespace::set(std::string_view name, Value value) {
  const auto found = std::find_if(attributes_.begin(), attributes_.end(),
                                  [&](const auto& attribute) { return attribute.first == name; });
  if (found == attributes_.end()) {
    attributes_.emplace_back(name, std::move(value));
  } else {
    found->second = std::move(value);
  }
}

}  // namespace mneme::jinja
