#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <regex>
#include <string>

#include "base/json.h"
#include "base/utf8.h"

namespace mneme {

/// Whether a value fits a JSON schema: the part of the specification that json_schema_gbnf() supports, written from the
/// specification alone as an oracle for tests and fuzz targets. oneOf is taken for anyOf. Patterns are left to
/// std::regex, and so checked for ASCII texts only; of formats, days are exact, the rest is checked by shape.
class SchemaValidator {
 public:
  /// `root` must outlive the validator.
  explicit SchemaValidator(const Json& root, bool with_patterns = true) : root_(root), with_patterns_(with_patterns) {}

  bool fits(const Json& value) const { return fits(root_, value); }

 private:
  bool fits(const Json& schema, const Json& value) const {
    if (schema.is_boolean()) return schema.get<bool>();
    if (schema.contains("$ref")) {
      const std::string path = schema["$ref"].get<std::string>().substr(1);
      if (!fits(root_.at(Json::json_pointer(path)), value)) return false;
    }
    if (schema.contains("type") && !of_types(schema["type"], value)) return false;
    if (schema.contains("const") && schema["const"] != value) return false;
    if (schema.contains("enum") && !any(schema["enum"], [&](const Json& each) { return each == value; })) return false;
    if (schema.contains("allOf") && any(schema["allOf"], [&](const Json& part) { return !fits(part, value); }))
      return false;
    for (const char* keyword : {"anyOf", "oneOf"}) {
      if (schema.contains(keyword) && !any(schema[keyword], [&](const Json& way) { return fits(way, value); }))
        return false;
    }
    if (value.is_object()) return object(schema, value);
    if (value.is_array()) return array(schema, value);
    if (value.is_string()) return string(schema, value.get<std::string>());
    if (value.is_number()) return number(schema, value);
    return true;
  }

  template <typename Holds>
  static bool any(const Json& list, Holds holds) {
    for (const Json& each : list) {
      if (holds(each)) return true;
    }
    return false;
  }

  static bool of_types(const Json& types, const Json& value) {
    if (types.is_array()) return any(types, [&](const Json& type) { return of_types(type, value); });
    const std::string name = types.get<std::string>();
    if (name == "object") return value.is_object();
    if (name == "array") return value.is_array();
    if (name == "string") return value.is_string();
    if (name == "boolean") return value.is_boolean();
    if (name == "null") return value.is_null();
    if (name == "number") return value.is_number();
    return name == "integer" && value.is_number() && std::floor(value.get<double>()) == value.get<double>();
  }

  bool object(const Json& schema, const Json& value) const {
    const Json properties = schema.value("properties", Json::object());
    for (const Json& name : schema.value("required", Json::array())) {
      if (!value.contains(name.get<std::string>())) return false;
    }
    for (const auto& [name, each] : value.items()) {
      if (properties.contains(name)) {
        if (!fits(properties[name], each)) return false;
      } else if (schema.contains("additionalProperties") && !fits(schema["additionalProperties"], each)) {
        return false;
      }
    }
    return true;
  }

  bool array(const Json& schema, const Json& value) const {
    if (schema.contains("minItems") && value.size() < schema["minItems"].get<double>()) return false;
    if (schema.contains("maxItems") && value.size() > schema["maxItems"].get<double>()) return false;
    const Json none = Json::array();
    const bool old_tuple = schema.contains("items") && schema["items"].is_array();
    const Json& first = old_tuple ? schema["items"] : schema.contains("prefixItems") ? schema["prefixItems"] : none;
    for (size_t i = 0; i < value.size(); ++i) {
      if (i < first.size()) {
        if (!fits(first[i], value[i])) return false;
      } else if (schema.contains("items") && !old_tuple && !fits(schema["items"], value[i])) {
        return false;
      }
    }
    return true;
  }

  bool string(const Json& schema, const std::string& value) const {
    const auto n = static_cast<double>(utf8_to_code_points(value).size());
    if (schema.contains("minLength") && n < schema["minLength"].get<double>()) return false;
    if (schema.contains("maxLength") && n > schema["maxLength"].get<double>()) return false;
    const bool ascii =
        std::all_of(value.begin(), value.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
    if (schema.contains("pattern") && with_patterns_ && ascii) {
      if (!std::regex_search(value, std::regex(schema["pattern"].get<std::string>()))) return false;
    }
    if (!schema.contains("format")) return true;
    const std::string format = schema["format"].get<std::string>();
    const auto matches = [&](const char* regex) { return std::regex_match(value, std::regex(regex)); };
    if (format == "date") return matches("\\d{4}-\\d\\d-\\d\\d") && is_date(value);
    if (format == "time")
      return matches("\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?(Z|[-+]\\d\\d:\\d\\d)") && value.substr(0, 2) < "24";
    if (format == "date-time") {
      return is_date(value) && matches("\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?(Z|[-+]\\d\\d:\\d\\d)");
    }
    return format != "uuid" || matches("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}");
  }

  static bool is_date(const std::string& value) {
    const int year = std::stoi(value.substr(0, 4)), month = std::stoi(value.substr(5, 2)),
              day = std::stoi(value.substr(8, 2));
    const bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    const int days[] = {31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month >= 1 && month <= 12 && day >= 1 && day <= days[month - 1];
  }

  static bool number(const Json& schema, const Json& value) {
    const long double x = value.get<long double>();
    const auto holds = [&](const char* keyword, auto compare) {
      return !schema.contains(keyword) || compare(x, schema[keyword].get<long double>());
    };
    return holds("minimum", std::greater_equal<>()) && holds("maximum", std::less_equal<>()) &&
           holds("exclusiveMinimum", std::greater<>()) && holds("exclusiveMaximum", std::less<>());
  }

  const Json& root_;
  bool with_patterns_;
};

}  // namespace mneme
