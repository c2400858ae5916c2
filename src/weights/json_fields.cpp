#include "weights/json_fields.h"

#include <limits>

#include "base/error.h"

namespace mneme {
namespace {

constexpr uint64_t kMaxCount = std::numeric_limits<int32_t>::max();

[[noreturn]] void fail_type(JsonFields::Names names, std::string_view expected, const SortedJson& found,
                            const std::string& source) {
  fail(ErrorCode::kCorruptData, "[read JSON] key '{}': expected {}, found {}, in {}", *names.begin(), expected,
       found.type_name(), source);
}

[[noreturn]] void fail_missing(JsonFields::Names names, const std::string& source) {
  fail(ErrorCode::kCorruptData, "[read JSON] expected key '{}', found none, in {}", *names.begin(), source);
}

}  // namespace

const SortedJson* JsonFields::find(Names names) const {
  if (!json_.is_object()) return nullptr;
  for (const char* name : names) {
    const auto found = json_.find(name);
    if (found != json_.end() && !found->is_null()) return &*found;
  }
  return nullptr;
}

std::optional<uint64_t> JsonFields::find_u64(Names names) const {
  const SortedJson* value = find(names);
  if (value == nullptr) return std::nullopt;
  const bool whole = value->is_number_unsigned() || (value->is_number_integer() && value->get<int64_t>() >= 0);
  if (!whole) fail_type(names, "an integer that is not negative", *value, source_);
  return value->get<uint64_t>();
}

std::optional<double> JsonFields::find_f64(Names names) const {
  const SortedJson* value = find(names);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) fail_type(names, "a number", *value, source_);
  return value->get<double>();
}

std::optional<bool> JsonFields::find_bool(Names names) const {
  const SortedJson* value = find(names);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) fail_type(names, "true or false", *value, source_);
  return value->get<bool>();
}

std::optional<std::string> JsonFields::find_string(Names names) const {
  const SortedJson* value = find(names);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) fail_type(names, "a string", *value, source_);
  return value->get<std::string>();
}

std::optional<uint32_t> JsonFields::find_count(Names names) const {
  const auto value = find_u64(names);
  if (!value) return std::nullopt;
  if (*value > kMaxCount) {
    fail(ErrorCode::kCorruptData, "[read JSON] key '{}': expected at most {}, found {}, in {}", *names.begin(),
         kMaxCount, *value, source_);
  }
  return static_cast<uint32_t>(*value);
}

uint32_t JsonFields::count(Names names) const {
  const auto value = find_count(names);
  if (!value) fail_missing(names, source_);
  return *value;
}

double JsonFields::f64(Names names) const {
  const auto value = find_f64(names);
  if (!value) fail_missing(names, source_);
  return *value;
}

const SortedJson* JsonFields::find_object(Names names) const {
  const SortedJson* value = find(names);
  if (value != nullptr && !value->is_object()) fail_type(names, "an object", *value, source_);
  return value;
}

}  // namespace mneme
