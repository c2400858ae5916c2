#include "engine/grammar/json_schema_merge.h"

#include <algorithm>
#include <array>

#include "base/error.h"

namespace mneme {
namespace {

[[noreturn]] void refuse(std::string_view keyword, std::string_view where) {
  fail(ErrorCode::kUnsupported, "[json schema] expected parts of allOf that can be joined, found different '{}', in {}", keyword,
       where);
}

/// Values that are in both lists. A single value counts as a list of one.
Json common(const Json& a, const Json& b) {
  const auto list = [](const Json& x) { return x.is_array() ? x : Json::array({x}); };
  const Json left = list(a), right = list(b);
  Json out = Json::array();
  for (const Json& value : left) {
    if (std::find(right.begin(), right.end(), value) != right.end()) out.push_back(value);
  }
  return out;
}

/// Types that both allow; an integer is also a number.
Json common_types(const Json& a, const Json& b) {
  Json out = common(a, b);
  const auto names = [](const Json& x, const char* type) {
    return x == type || (x.is_array() && std::find(x.begin(), x.end(), type) != x.end());
  };
  const bool has_integer = std::find(out.begin(), out.end(), "integer") != out.end();
  if (!has_integer && ((names(a, "integer") && names(b, "number")) || (names(a, "number") && names(b, "integer")))) {
    out.push_back("integer");
  }
  return out;
}

Json both(const Json& a, const Json& b) { return a == b ? a : Json{{"allOf", Json::array({a, b})}}; }

bool is_one_of(std::string_view keyword, std::initializer_list<std::string_view> list) {
  return std::find(list.begin(), list.end(), keyword) != list.end();
}

/// additionalProperties of one part applies to the properties that only the other part declares.
void restrict_foreign_properties(const Json& own, const Json& other, Json& properties, std::string_view where) {
  const auto additional = own.find("additionalProperties");
  if (additional == own.end() || *additional == true || !other.contains("properties")) return;
  for (const auto& [name, schema] : other["properties"].items()) {
    if (own.contains("properties") && own["properties"].contains(name)) continue;
    if (additional->is_boolean()) refuse("additionalProperties", where);
    properties[name] = both(schema, *additional);
  }
}

void merge_properties(const Json& a, const Json& b, Json& out, std::string_view where) {
  Json properties = a.value("properties", Json::object());
  if (b.contains("properties")) {
    for (const auto& [name, schema] : b["properties"].items()) {
      properties[name] = properties.contains(name) ? both(properties[name], schema) : schema;
    }
  }
  restrict_foreign_properties(a, b, properties, where);
  restrict_foreign_properties(b, a, properties, where);
  out["properties"] = std::move(properties);
}

Json merge_keyword(const std::string& keyword, const Json& a, const Json& b, std::string_view where) {
  if (a == b) return a;
  if (keyword == "type") {
    Json types = common_types(a, b);
    if (types.empty()) refuse(keyword, where);
    return types;
  }
  if (keyword == "required" && a.is_array() && b.is_array()) {
    Json out = a;
    for (const Json& name : b) {
      if (std::find(out.begin(), out.end(), name) == out.end()) out.push_back(name);
    }
    return out;
  }
  if (keyword == "enum" && a.is_array() && b.is_array()) return common(a, b);
  if (a.is_number() && b.is_number()) {
    if (is_one_of(keyword, {"minimum", "exclusiveMinimum", "minLength", "minItems"})) return a < b ? b : a;
    if (is_one_of(keyword, {"maximum", "exclusiveMaximum", "maxLength", "maxItems"})) return a < b ? a : b;
  }
  if (keyword == "items" && a.is_object() && b.is_object()) return both(a, b);
  if (keyword == "additionalProperties") {
    if (a == false || b == false) return false;
    if (a == true) return b;
    if (b == true) return a;
    return both(a, b);
  }
  refuse(keyword, where);
}

}  // namespace

bool is_annotation(std::string_view keyword) {
  return keyword.starts_with("x-") ||
         is_one_of(keyword, {"title", "description", "default", "examples", "$schema", "$id", "$comment", "deprecated",
                             "readOnly", "writeOnly", "contentMediaType", "contentEncoding", "$defs", "definitions"});
}

Json merge_schemas(const Json& a, const Json& b, std::string_view where) {
  for (const Json* part : {&a, &b}) {
    if (part->contains("properties") && !(*part)["properties"].is_object()) {
      fail(ErrorCode::kInvalidArgument, "[json schema] expected an object, found another type, in {}/properties", where);
    }
  }
  Json out = Json::object();
  for (const auto& [keyword, value] : a.items()) {
    if (!is_annotation(keyword)) out[keyword] = value;
  }
  for (const auto& [keyword, value] : b.items()) {
    if (is_annotation(keyword) || keyword == "properties") continue;
    out[keyword] = out.contains(keyword) ? merge_keyword(keyword, out[keyword], value, where) : value;
  }
  if (a.contains("properties") || b.contains("properties")) merge_properties(a, b, out, where);
  // An enumeration with a constant: what both name.
  if (out.contains("enum") && out.contains("const") && out["enum"].is_array()) {
    const Json values = common(out["enum"], Json::array({out["const"]}));
    if (values.empty()) refuse("const", where);
    out.erase("enum");
  }
  return out;
}

}  // namespace mneme
