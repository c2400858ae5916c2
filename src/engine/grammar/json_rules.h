#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "engine/grammar/char_set.h"

namespace mneme {

/// Collects the rules of a GBNF text, in which the rules for plain JSON are at hand by name.
///
/// `space` follows every token of JSON and allows little: nothing, one space, or a line break with indentation. Numbers
/// have at most 16 digits before and after the point and two in the exponent, so each fits a double. Escapes in strings
/// are the ones of JSON, with surrogates only in pairs.
class JsonRuleBook {
 public:
  /// Makes a plain rule available and returns its name: space, char, string, number, integer, boolean, null, value,
  /// object, array, hex, and the text of the formats date, time, date-time and uuid (without quotes). Any name of these
  /// is known.
  std::string use(std::string_view name);
  /// Whether use(name) would succeed.
  static bool has(std::string_view name);

  /// Reserves a rule name made from `hint` that is not taken yet.
  std::string reserve(std::string_view hint);
  void define(const std::string& name, std::string body);

  /// All rules as one GBNF text.
  std::string text() const;
  /// Size of the rules in bytes.
  size_t size() const { return size_; }

 private:
  bool add(std::string_view name, std::string_view body);

  std::map<std::string, std::string, std::less<>> rules_;
  std::map<std::string, int, std::less<>>
      next_number_;  ///< by name that was asked for: number of the next name like it
  size_t size_ = 0;
};

/// GBNF for one character of a set as it stands inside a JSON string: escaped where JSON wants it. The set is not
/// empty.
std::string json_char_gbnf(const CharSet& characters);

/// GBNF for the decimal integers from `low` to `high` (low <= high) without leading zeros; zero has no sign.
std::string integer_range_gbnf(int64_t low, int64_t high);

/// GBNF for any JSON value, or any JSON object, with the rule `root`.
std::string json_value_gbnf();
std::string json_object_gbnf();

}  // namespace mneme
