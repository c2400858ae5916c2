#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace mneme {

/// Type of a metadata value. The values are the ids of GGUF files and never change.
enum class ValueType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

/// "u32", "string", "array".
std::string_view value_type_name(ValueType type);
/// Bytes of one value in a file; 0 for strings and arrays, whose size varies.
size_t value_type_bytes(ValueType type);

/// One value. Scalars and arrays of numbers are raw little-endian bytes (of any alignment), strings their text.
struct MetadataValue {
  ValueType type = ValueType::kU32;
  ValueType element_type = ValueType::kU32;  ///< Of arrays.
  uint64_t count = 1;                        ///< Elements of an array, else 1.
  std::span<const std::byte> bytes;          ///< Empty for arrays of strings.
  std::vector<std::string_view> strings;     ///< Of arrays of strings.
  std::shared_ptr<const std::string> owner;  ///< Holds what the views point at; null when a mapped file does.

  std::string_view text() const { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
  /// "u32", "array of 128256 string".
  std::string type_text() const;
};

/// The key-value part of a model file, in the order of the file.
///
/// Strings and arrays that come from a file are views into its mapping and live as long as the file object; values that
/// were set are owned and shared by copies. Files differ in the width of numbers, so a getter takes every width whose
/// value fits. A find_...() answers a missing key with nothing, a get_...() with Error(kNotFound); both throw
/// Error(kCorruptData) that names the key when the value has another type or does not fit.
class Metadata {
 public:
  struct Entry {
    std::string key;
    MetadataValue value;
  };

  Metadata() = default;
  /// `source` names the file in messages.
  explicit Metadata(std::string source) : source_(std::move(source)) {}

  bool has(std::string_view key) const { return find(key) != nullptr; }
  const MetadataValue* find(std::string_view key) const;
  bool is_array(std::string_view key) const;
  std::span<const Entry> entries() const { return entries_; }
  size_t size() const { return entries_.size(); }

  uint64_t get_u64(std::string_view key) const;
  int64_t get_i64(std::string_view key) const;
  double get_f64(std::string_view key) const;
  bool get_bool(std::string_view key) const;
  std::string_view get_string(std::string_view key) const;

  std::optional<uint64_t> find_u64(std::string_view key) const;
  std::optional<int64_t> find_i64(std::string_view key) const;
  std::optional<double> find_f64(std::string_view key) const;
  std::optional<bool> find_bool(std::string_view key) const;
  std::optional<std::string_view> find_string(std::string_view key) const;

  std::optional<std::vector<uint64_t>> find_array_u64(std::string_view key) const;
  std::optional<std::vector<int32_t>> find_array_i32(std::string_view key) const;
  std::optional<std::vector<float>> find_array_f32(std::string_view key) const;
  std::optional<std::vector<double>> find_array_f64(std::string_view key) const;
  std::optional<std::vector<bool>> find_array_bool(std::string_view key) const;
  /// Array of u8 or i8, not copied.
  std::optional<std::span<const std::byte>> find_array_bytes(std::string_view key) const;
  std::optional<std::span<const std::string_view>> find_array_string(std::string_view key) const;
  /// A value for each of n layers: one number stands for all of them, an array must have n elements.
  std::optional<std::vector<uint64_t>> find_u64_per_layer(std::string_view key, size_t n_layers) const;

  /// Sets or replaces a value; a new key goes to the end.
  void set(std::string_view key, MetadataValue value);
  void set_u32(std::string_view key, uint32_t value);
  void set_u64(std::string_view key, uint64_t value);
  void set_i32(std::string_view key, int32_t value);
  void set_f32(std::string_view key, float value);
  void set_bool(std::string_view key, bool value);
  void set_string(std::string_view key, std::string_view value);
  void set_array_u8(std::string_view key, std::span<const std::byte> values);
  void set_array_u32(std::string_view key, std::span<const uint32_t> values);
  void set_array_i32(std::string_view key, std::span<const int32_t> values);
  void set_array_f32(std::string_view key, std::span<const float> values);
  void set_array_bool(std::string_view key, const std::vector<bool>& values);
  void set_array_string(std::string_view key, std::span<const std::string> values);
  /// Removes a key if it is there.
  void erase(std::string_view key);

  const std::string& source() const { return source_; }

 private:
  struct KeyHash {
    using is_transparent = void;
    size_t operator()(std::string_view key) const { return std::hash<std::string_view>{}(key); }
  };

  const MetadataValue& require(std::string_view key) const;
  [[noreturn]] void fail_type(std::string_view key, std::string_view expected, const MetadataValue& found) const;
  template <typename T>
  T to_number(std::string_view key, const MetadataValue& value) const;
  template <typename T>
  std::optional<std::vector<T>> find_array(std::string_view key, std::string_view expected) const;

  std::string source_;
  std::vector<Entry> entries_;
  std::unordered_map<std::string, size_t, KeyHash, std::equal_to<>> index_;
};

}  // namespace mneme
