#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"

namespace mneme {

/// Typed access to the members of a JSON object from a file: a value of another type is an Error(kCorruptData) that
/// names key and file. A key that is null counts as missing. Several names stand for the first of them that is there.
class JsonFields {
 public:
  using Names = std::initializer_list<const char*>;

  /// `json` must outlive this; anything but an object counts as empty.
  JsonFields(const SortedJson& json, const std::string& source) : json_(json), source_(source) {}

  const SortedJson* find(Names names) const;
  std::optional<uint64_t> find_u64(Names names) const;
  std::optional<double> find_f64(Names names) const;
  std::optional<bool> find_bool(Names names) const;
  std::optional<std::string> find_string(Names names) const;
  /// The value that must be there and be at most 2^31 - 1, the range of every count in a model.
  uint32_t count(Names names) const;
  std::optional<uint32_t> find_count(Names names) const;
  double f64(Names names) const;
  /// The object under a name, or null.
  const SortedJson* find_object(Names names) const;

  const std::string& source() const { return source_; }

 private:
  const SortedJson& json_;
  const std::string& source_;
};

}  // namespace mneme
