#include "engine/grammar/json_schema_merge.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "base/error.h"

namespace mneme {
namespace {

[[noreturn]] void refuse(std::string_view keyword, std::string_view where) {
  fail(ErrorCode::kUnsupported, "[json schema] expected parts of allOf that can be joined, found different '{}', in {}",
       brief_text(keyword), where);
}

/// Values that are in both lists. A single value counts as a list of one.
Json common(const Json& a, const Json& b) {
  const auto list = [](const Json& x) { return x.is_array() ? x : Json::array({x}); };
  const Json left = list(a), right_list = list(b);
  const std::set<Json> right(right_list.begin(), right_list.end());
  Json out = Json::array();
  for (const Json& value : left) {
    if (right.contains(value)) out.push_back(value);
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

Json both(const Json& a, const Json& b) {
  return a == b ? a : Json{{"allOf", Json::array({a, b})}};
}

bool is_one_of(std::string_view keyword, std::initializer_list<std::string_view> list) {
  return std::find(list.begin(), list.end(), keyword) != list.end();
}

/// Properties by name: a Json object looks at every one of them to find one.
using PropertyIndex = std::map<std::string_view, const Json*>;

PropertyIndex index_properties(const Json& schema) {
  PropertyIndex index;
  if (!schema.contains("properties")) return index;
  for (const auto& [name, property] : schema["properties"].items()) index.emplace(name, &property);
  return index;
}

/// What a property must be that `other` does not declare: additionalProperties of `other` applies to it.
Json with_additional(const Json& property, const Json& other, std::string_view where) {
  const auto additional = other.find("additionalProperties");
  if (additional == other.end() || *additional == true) return property;
  if (additional->is_boolean()) refuse("additionalProperties", where);
  return both(property, *additional);
}

Json merge_properties(const Json& a, const Json& b, std::string_view where) {
  const PropertyIndex in_a = index_properties(a), in_b = index_properties(b);
  Json::object_t out;
  if (a.contains("properties")) {
    for (const auto& [name, property] : a["properties"].items()) {
      const auto found = in_b.find(name);
      out.emplace_back(name,
                       found == in_b.end() ? with_additional(property, b, where) : both(property, *found->second));
    }
  }
  if (b.contains("properties")) {
    for (const auto& [name, property] : b["properties"].items()) {
      if (!in_a.contains(name)) out.emplace_back(name, with_additional(property, a, where));
    }
  }
  return out;
}

/// `items` means the items behind the tuple of its own schema, so it says something else beside the tuple of another
/// one.
void refuse_items_beside_tuples(const Json& a, const Json& b, std::string_view where) {
  const auto says = [](const Json& schema, const char* keyword) { return schema.value(keyword, Json()); };
  const bool tuple = a.contains("prefixItems") || b.contains("prefixItems") || says(a, "items").is_array() ||
                     says(b, "items").is_array();
  const auto any = [](const Json& schema) { return schema.contains("prefixItems") || schema.contains("items"); };
  if (!tuple || !any(a) || !any(b)) return;
  if (says(a, "items") != says(b, "items") || says(a, "prefixItems") != says(b, "prefixItems")) refuse("items", where);
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
    std::set<Json> seen(a.begin(), a.end());
    for (const Json& name : b) {
      if (seen.insert(name).second) out.push_back(name);
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
      fail(ErrorCode::kInvalidArgument, "[json schema] expected an object, found another type, in {}/properties",
           where);
    }
  }
  refuse_items_beside_tuples(a, b, where);
  Json out = Json::object();
  for (const auto& [keyword, value] : a.items()) {
    if (!is_annotation(keyword)) out[keyword] = value;
  }
  for (const auto& [keyword, value] : b.items()) {
    if (is_annotation(keyword) || keyword == "properties") continue;
    out[keyword] = out.contains(keyword) ? merge_keyword(keyword, out[keyword], value, where) : value;
  }
  if (a.contains("properties") || b.contains("properties")) out["properties"] = merge_properties(a, b, where);
  // An enumeration with a constant: what both name.
  if (out.contains("enum") && out.contains("const") && out["enum"].is_array()) {
    const Json values = common(out["enum"], Json::array({out["const"]}));
    if (values.empty()) refuse("const", where);
    out.erase("enum");
  }
  return out;
}

}  // namespace mneme
