#include "weights/metadata.h"

#include <cstring>
#include <type_traits>
#include <utility>

#include "base/error.h"

namespace mneme {
namespace {

template <typename T>
T load(const std::byte* at) {
  T value{};
  std::memcpy(&value, at, sizeof value);
  return value;
}

/// The number at `at` as T, or nothing when it is not a number or its value does not fit. Float targets of narrower
/// precision round; integer targets take integers only.
template <typename T>
std::optional<T> convert_number(ValueType type, const std::byte* at) {
  const auto from_integer = [](auto value) -> std::optional<T> {
    if constexpr (std::is_integral_v<T>) {
      if (!std::in_range<T>(value)) return std::nullopt;
    }
    return static_cast<T>(value);
  };
  const auto from_float = [](auto value) -> std::optional<T> {
    if constexpr (std::is_integral_v<T>) return std::nullopt;
    return static_cast<T>(value);
  };
  switch (type) {
    case ValueType::kU8:
      return from_integer(load<uint8_t>(at));
    case ValueType::kI8:
      return from_integer(load<int8_t>(at));
    case ValueType::kU16:
      return from_integer(load<uint16_t>(at));
    case ValueType::kI16:
      return from_integer(load<int16_t>(at));
    case ValueType::kU32:
      return from_integer(load<uint32_t>(at));
    case ValueType::kI32:
      return from_integer(load<int32_t>(at));
    case ValueType::kU64:
      return from_integer(load<uint64_t>(at));
    case ValueType::kI64:
      return from_integer(load<int64_t>(at));
    case ValueType::kF32:
      return from_float(load<float>(at));
    case ValueType::kF64:
      return from_float(load<double>(at));
    case ValueType::kBool:
    case ValueType::kString:
    case ValueType::kArray:
      break;
  }
  return std::nullopt;
}

std::span<const std::byte> as_bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

MetadataValue owned_value(ValueType type, const void* data, size_t bytes) {
  MetadataValue value;
  value.type = type;
  auto owner = std::make_shared<std::string>();
  if (bytes > 0) owner->assign(static_cast<const char*>(data), bytes);
  value.bytes = as_bytes_of(*owner);
  value.owner = std::move(owner);
  return value;
}

template <typename T>
MetadataValue owned_scalar(ValueType type, T scalar) {
  return owned_value(type, &scalar, sizeof scalar);
}

template <typename T>
MetadataValue owned_array(ValueType element_type, std::span<const T> values) {
  MetadataValue value = owned_value(ValueType::kArray, values.data(), values.size_bytes());
  value.element_type = element_type;
  value.count = values.size();
  return value;
}

}  // namespace

std::string_view value_type_name(ValueType type) {
  switch (type) {
    case ValueType::kU8:
      return "u8";
    case ValueType::kI8:
      return "i8";
    case ValueType::kU16:
      return "u16";
    case ValueType::kI16:
      return "i16";
    case ValueType::kU32:
      return "u32";
    case ValueType::kI32:
      return "i32";
    case ValueType::kF32:
      return "f32";
    case ValueType::kBool:
      return "bool";
    case ValueType::kString:
      return "string";
    case ValueType::kArray:
      return "array";
    case ValueType::kU64:
      return "u64";
    case ValueType::kI64:
      return "i64";
    case ValueType::kF64:
      return "f64";
  }
  return "unknown";
}

size_t value_type_bytes(ValueType type) {
  switch (type) {
    case ValueType::kU8:
    case ValueType::kI8:
    case ValueType::kBool:
      return 1;
    case ValueType::kU16:
    case ValueType::kI16:
      return 2;
    case ValueType::kU32:
    case ValueType::kI32:
    case ValueType::kF32:
      return 4;
    case ValueType::kU64:
    case ValueType::kI64:
    case ValueType::kF64:
      return 8;
    case ValueType::kString:
    case ValueType::kArray:
      break;
  }
  return 0;
}

std::string MetadataValue::type_text() const {
  if (type != ValueType::kArray) return std::string(value_type_name(type));
  return fmt::format("array of {} {}", count, value_type_name(element_type));
}

const MetadataValue* Metadata::find(std::string_view key) const {
  const auto found = index_.find(key);
  return found == index_.end() ? nullptr : &entries_[found->second].value;
}

bool Metadata::is_array(std::string_view key) const {
  const MetadataValue* value = find(key);
  return value != nullptr && value->type == ValueType::kArray;
}

const MetadataValue& Metadata::require(std::string_view key) const {
  const MetadataValue* value = find(key);
  if (value == nullptr) fail(ErrorCode::kNotFound, "[metadata] expected key '{}', found none, in {}", key, source_);
  return *value;
}

void Metadata::fail_type(std::string_view key, std::string_view expected, const MetadataValue& found) const {
  fail(ErrorCode::kCorruptData, "[metadata] key '{}': expected {}, found {}, in {}", key, expected, found.type_text(),
       source_);
}

template <typename T>
T Metadata::to_number(std::string_view key, const MetadataValue& value) const {
  constexpr std::string_view kExpected = std::is_floating_point_v<T> ? "a number" : "an integer";
  if (value.type == ValueType::kArray || value.type == ValueType::kString) fail_type(key, kExpected, value);
  const std::optional<T> number = convert_number<T>(value.type, value.bytes.data());
  if (!number) {
    if (const auto integer = convert_number<int64_t>(value.type, value.bytes.data())) {
      fail(ErrorCode::kCorruptData, "[metadata] key '{}': expected a value that is not negative, found {}, in {}", key,
           *integer, source_);
    }
    fail_type(key, kExpected, value);
  }
  return *number;
}

uint64_t Metadata::get_u64(std::string_view key) const {
  return to_number<uint64_t>(key, require(key));
}
int64_t Metadata::get_i64(std::string_view key) const {
  return to_number<int64_t>(key, require(key));
}
double Metadata::get_f64(std::string_view key) const {
  return to_number<double>(key, require(key));
}

bool Metadata::get_bool(std::string_view key) const {
  const MetadataValue& value = require(key);
  if (value.type != ValueType::kBool) fail_type(key, "bool", value);
  return value.bytes[0] != std::byte{0};
}

std::string_view Metadata::get_string(std::string_view key) const {
  const MetadataValue& value = require(key);
  if (value.type != ValueType::kString) fail_type(key, "string", value);
  return value.text();
}

std::optional<uint64_t> Metadata::find_u64(std::string_view key) const {
  return has(key) ? std::optional(get_u64(key)) : std::nullopt;
}

std::optional<int64_t> Metadata::find_i64(std::string_view key) const {
  return has(key) ? std::optional(get_i64(key)) : std::nullopt;
}

std::optional<double> Metadata::find_f64(std::string_view key) const {
  return has(key) ? std::optional(get_f64(key)) : std::nullopt;
}

std::optional<bool> Metadata::find_bool(std::string_view key) const {
  return has(key) ? std::optional(get_bool(key)) : std::nullopt;
}

std::optional<std::string_view> Metadata::find_string(std::string_view key) const {
  return has(key) ? std::optional(get_string(key)) : std::nullopt;
}

template <typename T>
std::optional<std::vector<T>> Metadata::find_array(std::string_view key, std::string_view expected) const {
  const MetadataValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != ValueType::kArray) fail_type(key, expected, *value);
  const size_t width = value_type_bytes(value->element_type);
  if (width == 0) fail_type(key, expected, *value);
  std::vector<T> numbers;
  numbers.reserve(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    const auto number = convert_number<T>(value->element_type, value->bytes.data() + i * width);
    if (!number) {
      fail(ErrorCode::kCorruptData, "[metadata] key '{}': expected {}, found element {} of an {} that is not, in {}",
           key, expected, i, value->type_text(), source_);
    }
    numbers.push_back(*number);
  }
  return numbers;
}

std::optional<std::vector<uint64_t>> Metadata::find_array_u64(std::string_view key) const {
  return find_array<uint64_t>(key, "an array of integers that are not negative");
}

std::optional<std::vector<int32_t>> Metadata::find_array_i32(std::string_view key) const {
  return find_array<int32_t>(key, "an array of 32-bit integers");
}

std::optional<std::vector<float>> Metadata::find_array_f32(std::string_view key) const {
  return find_array<float>(key, "an array of numbers");
}

std::optional<std::vector<double>> Metadata::find_array_f64(std::string_view key) const {
  return find_array<double>(key, "an array of numbers");
}

std::optional<std::vector<bool>> Metadata::find_array_bool(std::string_view key) const {
  const MetadataValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != ValueType::kArray || value->element_type != ValueType::kBool) {
    fail_type(key, "an array of bool", *value);
  }
  std::vector<bool> flags;
  flags.reserve(value->count);
  for (std::byte byte : value->bytes) flags.push_back(byte != std::byte{0});
  return flags;
}

std::optional<std::span<const std::byte>> Metadata::find_array_bytes(std::string_view key) const {
  const MetadataValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != ValueType::kArray ||
      (value->element_type != ValueType::kU8 && value->element_type != ValueType::kI8)) {
    fail_type(key, "an array of u8", *value);
  }
  return value->bytes;
}

std::optional<std::span<const std::string_view>> Metadata::find_array_string(std::string_view key) const {
  const MetadataValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != ValueType::kArray || value->element_type != ValueType::kString) {
    fail_type(key, "an array of string", *value);
  }
  return value->strings;
}

std::optional<std::vector<uint64_t>> Metadata::find_u64_per_layer(std::string_view key, size_t n_layers) const {
  if (!has(key)) return std::nullopt;
  if (!is_array(key)) return std::vector<uint64_t>(n_layers, get_u64(key));
  auto values = find_array_u64(key);
  if (values->size() != n_layers) {
    fail(ErrorCode::kCorruptData, "[metadata] key '{}': expected one number or {}, found {}, in {}", key, n_layers,
         values->size(), source_);
  }
  return values;
}

void Metadata::set(std::string_view key, MetadataValue value) {
  const auto [position, inserted] = index_.try_emplace(std::string(key), entries_.size());
  if (inserted) {
    entries_.push_back({std::string(key), std::move(value)});
  } else {
    entries_[position->second].value = std::move(value);
  }
}

void Metadata::set_u32(std::string_view key, uint32_t value) {
  set(key, owned_scalar(ValueType::kU32, value));
}
void Metadata::set_u64(std::string_view key, uint64_t value) {
  set(key, owned_scalar(ValueType::kU64, value));
}
void Metadata::set_i32(std::string_view key, int32_t value) {
  set(key, owned_scalar(ValueType::kI32, value));
}
void Metadata::set_f32(std::string_view key, float value) {
  set(key, owned_scalar(ValueType::kF32, value));
}

void Metadata::set_bool(std::string_view key, bool value) {
  set(key, owned_scalar<uint8_t>(ValueType::kBool, value ? 1 : 0));
}

void Metadata::set_string(std::string_view key, std::string_view value) {
  set(key, owned_value(ValueType::kString, value.data(), value.size()));
}

void Metadata::set_array_u8(std::string_view key, std::span<const std::byte> values) {
  set(key, owned_array(ValueType::kU8, values));
}

void Metadata::set_array_u32(std::string_view key, std::span<const uint32_t> values) {
  set(key, owned_array(ValueType::kU32, values));
}

void Metadata::set_array_i32(std::string_view key, std::span<const int32_t> values) {
  set(key, owned_array(ValueType::kI32, values));
}

void Metadata::set_array_f32(std::string_view key, std::span<const float> values) {
  set(key, owned_array(ValueType::kF32, values));
}

void Metadata::set_array_bool(std::string_view key, const std::vector<bool>& values) {
  std::vector<uint8_t> flags(values.begin(), values.end());
  set(key, owned_array(ValueType::kBool, std::span<const uint8_t>(flags)));
}

void Metadata::set_array_string(std::string_view key, std::span<const std::string> values) {
  auto owner = std::make_shared<std::string>();
  for (const std::string& text : values) owner->append(text);
  MetadataValue value;
  value.type = ValueType::kArray;
  value.element_type = ValueType::kString;
  value.count = values.size();
  value.strings.reserve(values.size());
  size_t at = 0;
  for (const std::string& text : values) {
    value.strings.push_back(std::string_view(*owner).substr(at, text.size()));
    at += text.size();
  }
  value.owner = std::move(owner);
  set(key, std::move(value));
}

void Metadata::erase(std::string_view key) {
  const auto found = index_.find(key);
  if (found == index_.end()) return;
  const size_t position = found->second;
  index_.erase(found);
  entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(position));
  for (auto& [name, i] : index_) {
    if (i > position) --i;
  }
}

}  // namespace mneme
