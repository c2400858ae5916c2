#pragma once

#include <toml++/toml.h>

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"

/// Reading of recipe tables; for the files that read recipes only.
namespace mneme::train {

/// Collects what is wrong with a recipe, so that all of it is reported at once.
class Problems {
 public:
  explicit Problems(std::string source) : source_(std::move(source)) {}

  template <typename... Args>
  void add(const toml::source_region& where, fmt::format_string<Args...> format, Args&&... args) {
    add_text(fmt::format("line {}: {}", where.begin.line, fmt::format(format, std::forward<Args>(args)...)));
  }
  void add_text(std::string problem) { list_.push_back(std::move(problem)); }

  void check() const {
    if (list_.empty()) return;
    fail(ErrorCode::kInvalidArgument, "[recipe] {}: expected a valid recipe, found {} problem{}: {}", source_,
         list_.size(), list_.size() == 1 ? "" : "s", fmt::join(list_, "; "));
  }

 private:
  std::string source_;
  std::vector<std::string> list_;
};

/// One table of a recipe: takes known keys, then reports the rest as unknown.
class Section {
 public:
  Section(const toml::table& table, std::string name, Problems& problems)
      : table_(table), name_(std::move(name)), problems_(problems) {}

  template <typename T>
  void take(const char* key, T& target, double least = -std::numeric_limits<double>::infinity(),
            double most = std::numeric_limits<double>::infinity()) {
    known_.insert(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr) return;
    if constexpr (std::is_same_v<T, std::string>) {
      if (const auto value = node->value_exact<std::string>()) {
        target = *value;
      } else {
        problems_.add(node->source(), "{}.{}: expected a string", name_, key);
      }
    } else {
      const auto number = std::is_integral_v<T> ? integer_of(*node) : node->value<double>();
      if (!number || (std::is_same_v<T, bool> && !node->is_boolean())) {
        problems_.add(node->source(), "{}.{}: expected {}", name_, key,
                      std::is_same_v<T, bool> ? "true or false"
                      : std::is_integral_v<T> ? "a whole number"
                                              : "a number");
      } else if (*number < std::max(least, std::is_unsigned_v<T> ? 0.0 : least) || *number > most) {
        problems_.add(node->source(), "{}.{}: expected a value from {} to {}, found {}", name_, key,
                      std::is_unsigned_v<T> ? std::max(least, 0.0) : least, most, *number);
      } else {
        target = static_cast<T>(*number);
      }
    }
  }

  template <typename Value>
  void take_choice(const char* key, Value& target, std::initializer_list<std::pair<const char*, Value>> choices) {
    std::string text;
    take(key, text);
    if (text.empty()) return;
    std::string names;
    for (const auto& [choice, value] : choices) {
      if (text == choice) {
        target = value;
        return;
      }
      names += names.empty() ? choice : std::string(", ") + choice;
    }
    problems_.add(table_.get(key)->source(), "{}.{}: expected one of {}, found {}", name_, key, names, text);
  }

  void take_list(const char* key, std::vector<size_t>& target) {
    take_list_of(key, target, "positive whole numbers", [](const toml::node& node) -> std::optional<size_t> {
      const auto value = integer_of(node);
      return value && *value > 0 ? std::optional(static_cast<size_t>(*value)) : std::nullopt;
    });
  }

  void take_list(const char* key, std::vector<std::string>& target) {
    take_list_of(key, target, "strings", [](const toml::node& node) -> std::optional<std::string> {
      const auto value = node.value_exact<std::string>();
      return value && !value->empty() ? value : std::nullopt;
    });
  }

  bool has(const char* key) const { return table_.get(key) != nullptr; }

  void require(const char* key) {
    if (!has(key)) problems_.add(table_.source(), "{}: expected the key {}, found none", name_, key);
  }

  /// Reports a key that would mean something in another place.
  void refuse(const char* key, const std::string& expected) {
    const toml::node* node = table_.get(key);
    if (node == nullptr || !known_.insert(key).second) return;
    problems_.add(node->source(), "{}.{}: expected {}", name_, key, expected);
  }

  /// Reports a problem at a key that is there, or at the table.
  void complain(const char* key, const std::string& problem) {
    const toml::node* node = table_.get(key);
    problems_.add(node != nullptr ? node->source() : table_.source(), "{}.{}: {}", name_, key, problem);
  }

  void finish() {
    for (const auto& [key, node] : table_) {
      if (!known_.contains(std::string(key.str()))) problems_.add(node.source(), "unknown key {}.{}", name_, key.str());
    }
  }

  const toml::source_region& source() const { return table_.source(); }

 private:
  /// `read` gives the value of an element, or nothing where it is of another kind.
  template <typename T, typename Read>
  void take_list_of(const char* key, std::vector<T>& target, const char* kind, Read read) {
    known_.insert(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr) return;
    target.clear();
    const toml::array* array = node->as_array();
    bool valid = array != nullptr;
    for (size_t i = 0; valid && i < array->size(); ++i) {
      const std::optional<T> value = read((*array)[i]);
      valid = value.has_value();
      if (valid) target.push_back(*value);
    }
    if (!valid) problems_.add(node->source(), "{}.{}: expected a list of {}", name_, key, kind);
  }

  static std::optional<double> integer_of(const toml::node& node) {
    if (node.is_boolean()) return node.value<bool>().value() ? 1.0 : 0.0;
    const auto value = node.value_exact<int64_t>();
    return value ? std::optional<double>(static_cast<double>(*value)) : std::nullopt;
  }

  const toml::table& table_;
  std::string name_;
  Problems& problems_;
  std::set<std::string> known_;
};

}  // namespace mneme::train
