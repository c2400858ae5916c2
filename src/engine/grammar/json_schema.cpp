#include "engine/grammar/json_schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"
#include "engine/grammar/gbnf.h"
#include "engine/grammar/json_key.h"
#include "engine/grammar/json_pattern.h"
#include "engine/grammar/json_pointer.h"
#include "engine/grammar/json_rules.h"
#include "engine/grammar/json_schema_limits.h"
#include "engine/grammar/json_schema_merge.h"

namespace mneme {
namespace {

constexpr int kMaxDepth = 128;
constexpr size_t kMaxSchemaBytes = size_t{256} << 10;
/// Text of schemas that may be looked at; references can make a short schema into a very long one.
constexpr size_t kMaxWorkBytes = size_t{32} << 20;
constexpr size_t kMaxRuleBytes = GbnfLimits::kTextBytes - 65536;

constexpr std::array<std::string_view, 22> kKeywords = {"type",      "properties",
                                                        "required",  "additionalProperties",
                                                        "items",     "prefixItems",
                                                        "minItems",  "maxItems",
                                                        "enum",      "const",
                                                        "anyOf",     "oneOf",
                                                        "allOf",     "$ref",
                                                        "minLength", "maxLength",
                                                        "pattern",   "format",
                                                        "minimum",   "exclusiveMinimum",
                                                        "maximum",   "exclusiveMaximum"};

std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// The beginning of a value, for a message.
std::string brief(const Json& value) {
  return shortened(dump(value), 60);
}

std::string_view type_of(const Json& value) {
  if (value.is_null()) return "null";
  if (value.is_boolean()) return "boolean";
  if (value.is_string()) return "string";
  if (value.is_array()) return "array";
  if (value.is_object()) return "object";
  const bool integral = value.is_number_integer() || std::floor(value.get<double>()) == value.get<double>();
  return integral ? "integer" : "number";
}

class Converter {
 public:
  explicit Converter(const Json& schema) : root_(schema) {}

  std::string convert() {
    if (dump(root_).size() > kMaxSchemaBytes)
      refuse("#", "expected a schema of at most {} bytes, found more", kMaxSchemaBytes);
    const std::string root = book_.reserve("root");
    book_.define(root, visit(root_, "#", root, 0));
    return book_.text();
  }

 private:
  template <typename... Args>
  [[noreturn]] static void refuse(const std::string& where, fmt::format_string<Args...> format, Args&&... args) {
    fail(ErrorCode::kUnsupported, "[json schema] {}, in {}", fmt::format(format, std::forward<Args>(args)...), where);
  }
  [[noreturn]] static void expect(std::string_view expected, const Json& found, const std::string& where) {
    fail(ErrorCode::kInvalidArgument, "[json schema] expected {}, found {}, in {}", expected, brief(found), where);
  }
  /// GBNF element (a rule name or an expression in parentheses) for the values of `schema`. Equal schemas share one
  /// rule, which is also what ends the recursion of schemas that contain themselves.
  std::string visit(const Json& schema, const std::string& where, const std::string& hint, int depth) {
    if (depth > kMaxDepth) refuse(where, "expected at most {} nested schemas, found more", kMaxDepth);
    spend(0, where);
    if (schema.is_boolean()) {
      if (!schema.get<bool>()) refuse(where, "expected a schema that some value fits, found false");
      return book_.use("value");
    }
    if (!schema.is_object()) expect("a schema (an object or a boolean)", schema, where);
    const std::string key = dump(schema);
    spend(key.size(), where);
    if (const auto known = known_.find(key); known != known_.end()) return known->second;
    const std::string name = book_.reserve(hint);
    known_bytes_ += key.size() + name.size();
    known_.emplace(key, name);
    book_.define(name, body_of(schema, where, name, depth));
    return name;
  }

  std::string body_of(const Json& schema, const std::string& where, const std::string& name, int depth) {
    refuse_unsupported(schema, where);
    if (schema.contains("$ref")) return reference(schema, where, name, depth);
    if (schema.contains("allOf")) return visit(joined(schema, where, 0), where, name + "-all", depth + 1);
    for (const char* keyword : {"anyOf", "oneOf"}) {
      if (schema.contains(keyword)) return alternatives(schema, keyword, where, name, depth);
    }
    if (schema.contains("enum") || schema.contains("const")) return enumeration(schema, where);
    return typed(schema, where, name, depth);
  }

  static void refuse_unsupported(const Json& schema, const std::string& where) {
    for (const auto& [keyword, value] : schema.items()) {
      if (is_annotation(keyword) || std::find(kKeywords.begin(), kKeywords.end(), keyword) != kKeywords.end()) continue;
      if ((keyword == "uniqueItems" || keyword == "nullable") && value == false) continue;
      refuse(json_path(where, keyword), "the keyword '{}' is not supported", brief_text(keyword));
    }
  }

  /// The schema without the given keyword and without what only describes it.
  static Json without(const Json& schema, std::string_view keyword) {
    Json out = Json::object();
    for (const auto& [k, value] : schema.items()) {
      if (k != keyword && !is_annotation(k)) out[k] = value;
    }
    return out;
  }

  /// Counts what there is to do, so that a schema that unfolds without end is refused soon.
  void spend(size_t bytes, const std::string& where) {
    constexpr size_t kLeast = 64;  // for a schema without text
    work_bytes_ += bytes + kLeast;
    if (work_bytes_ > kMaxWorkBytes || book_.size() + known_bytes_ > kMaxRuleBytes) {
      refuse(where, "expected a schema of reasonable size, found too many parts");
    }
  }

  // References.

  /// The part of the root schema that a $ref names.
  const Json& resolve(const Json& ref, const std::string& where) const {
    const std::string at = json_path(where, "$ref");
    if (!ref.is_string()) expect("a text", ref, at);
    const std::string target = ref.get<std::string>();
    if (!target.starts_with('#') || (target.size() > 1 && target[1] != '/')) {
      refuse(at, "expected a reference into this schema (#/...), found {}", brief(ref));
    }
    const Json* found = find_json_reference(root_, target);
    if (found == nullptr) expect("a place in this schema", ref, at);
    return *found;
  }

  std::string reference(const Json& schema, const std::string& where, const std::string& name, int depth) {
    if (!without(schema, "$ref").empty()) return visit(joined(schema, where, 0), where, name + "-ref", depth + 1);
    // Follow a chain of references, so that one that only leads to itself is found here.
    const Json* target = &schema;
    std::string path = where;
    for (int n = 0; target->is_object() && target->contains("$ref") && without(*target, "$ref").empty(); ++n) {
      if (n > kMaxDepth) refuse(where, "expected a reference to a schema, found one that leads to itself");
      path = (*target)["$ref"].is_string() ? brief_text((*target)["$ref"].get<std::string>(), 240) : path;
      target = &resolve((*target)["$ref"], where);
    }
    return visit(*target, path, hint_of(path), depth + 1);
  }

  static std::string hint_of(const std::string& path) {
    const size_t slash = path.rfind('/');
    return "ref-" + (slash == std::string::npos ? path : path.substr(slash + 1));
  }

  /// One schema for $ref, allOf and the keywords beside them.
  Json joined(const Json& schema, const std::string& where, int depth) {
    if (depth > kMaxDepth) refuse(where, "expected allOf and $ref that end, found ones that lead to themselves");
    if (schema == true) return Json::object();
    if (!schema.is_object()) expect("a schema that can be joined (an object)", schema, where);
    refuse_unsupported(schema, where);
    Json out = Json::object();
    for (const auto& [keyword, value] : schema.items()) {
      if (keyword != "$ref" && keyword != "allOf" && !is_annotation(keyword)) out[keyword] = value;
    }
    if (schema.contains("$ref"))
      out = merge_schemas(joined(resolve(schema["$ref"], where), where, depth + 1), out, where);
    if (schema.contains("allOf")) {
      const std::string at = json_path(where, "allOf");
      if (!schema["allOf"].is_array() || schema["allOf"].empty()) expect("a list of schemas", schema["allOf"], at);
      for (const Json& part : schema["allOf"]) out = merge_schemas(out, joined(part, at, depth + 1), at);
    }
    spend(dump(out).size(), where);
    return out;
  }

  // Alternatives and fixed values.

  std::string alternatives(const Json& schema, const char* keyword, const std::string& where, const std::string& name,
                           int depth) {
    const Json& list = schema[keyword];
    const std::string at = json_path(where, keyword);
    if (!list.is_array() || list.empty()) expect("a list of schemas", list, at);
    const Json base = without(schema, keyword);
    std::vector<std::string> ways;
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string place = json_path(at, std::to_string(i));
      const Json& way = list[i];
      const std::string hint = fmt::format("{}-{}", name, i);
      ways.push_back(base.empty() ? visit(way, place, hint, depth + 1)
                                  : visit(merge_schemas(base, joined(way, place, 0), place), place, hint, depth + 1));
    }
    return fmt::format("{}", fmt::join(ways, " | "));
  }

  std::string enumeration(const Json& schema, const std::string& where) {
    for (const auto& [keyword, value] : schema.items()) {
      if (!is_annotation(keyword) && keyword != "enum" && keyword != "const" && keyword != "type") {
        refuse(json_path(where, keyword), "'{}' together with enum or const is not supported", keyword);
      }
    }
    Json values = Json::array();
    if (schema.contains("const")) {
      values.push_back(schema["const"]);
      if (schema.contains("enum")) refuse(json_path(where, "enum"), "enum together with const is not supported");
    } else {
      values = schema["enum"];
      if (!values.is_array()) expect("a list of values", values, json_path(where, "enum"));
    }
    std::vector<std::string> ways;
    for (const Json& value : values) {
      if (schema.contains("type") && !type_allows(schema["type"], value)) continue;
      ways.push_back(gbnf_literal(dump(value)));
    }
    if (ways.empty()) refuse(where, "expected a value that fits, found none");
    return fmt::format("({}) {}", fmt::join(ways, " | "), book_.use("space"));
  }

  static bool type_allows(const Json& type, const Json& value) {
    const std::string_view own = type_of(value);
    const auto fits = [&](const Json& t) { return t == own || (own == "integer" && t == "number"); };
    return type.is_array() ? std::any_of(type.begin(), type.end(), fits) : fits(type);
  }

  // Types.

  std::string typed(const Json& schema, const std::string& where, const std::string& name, int depth) {
    const auto type = schema.find("type");
    if (type == schema.end()) return of_type(inferred_type(schema, where), schema, where, name, depth);
    const std::string at = json_path(where, "type");
    if (type->is_string()) return of_type(type_name(*type, at), schema, where, name, depth);
    if (!type->is_array() || type->empty()) expect("a type or a list of types", *type, at);
    std::vector<std::string> ways;
    for (const Json& t : *type) {
      if (!t.is_string()) expect("the name of a type", t, at);
      const std::string each = book_.reserve(name + "-" + type_name(t, at));
      book_.define(each, of_type(type_name(t, at), schema, where, each, depth));
      ways.push_back(each);
    }
    return fmt::format("{}", fmt::join(ways, " | "));
  }

  /// A string that names one of JSON Schema's types.
  static std::string type_name(const Json& type, const std::string& at) {
    constexpr std::string_view kTypes[] = {"object", "array", "string", "number", "integer", "boolean", "null"};
    if (std::find(std::begin(kTypes), std::end(kTypes), type.get<std::string>()) == std::end(kTypes)) {
      expect("a type of object, array, string, number, integer, boolean, null", type, at);
    }
    return type.get<std::string>();
  }

  /// A schema without a type is taken for the type that its keywords speak of; "value" is any.
  static std::string inferred_type(const Json& schema, const std::string& where) {
    const auto has = [&](std::initializer_list<const char*> keywords) {
      return std::any_of(keywords.begin(), keywords.end(), [&](const char* k) { return schema.contains(k); });
    };
    if (has({"properties", "required", "additionalProperties"})) return "object";
    if (has({"items", "prefixItems", "minItems", "maxItems"})) return "array";
    if (has({"minLength", "maxLength", "pattern", "format"})) return "string";
    if (has({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})) {
      refuse(where, "limits of numbers without \"type\": \"integer\" are not supported");
    }
    return "value";
  }

  std::string of_type(const std::string& type, const Json& schema, const std::string& where, const std::string& name,
                      int depth) {
    if (type == "object") return object(schema, where, name, depth);
    if (type == "array") return array(schema, where, name, depth);
    if (type == "string") return string(schema, where);
    if (type == "integer") return integer(schema, where);
    if (type == "number") {
      for (const char* keyword : {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}) {
        if (schema.contains(keyword))
          refuse(json_path(where, keyword), "limits of numbers are supported for integers only");
      }
    }
    return book_.use(type);
  }

  std::string object(const Json& schema, const std::string& where, const std::string& name, int depth) {
    const Json properties = schema.value("properties", Json::object());
    if (!properties.is_object()) expect("an object", properties, json_path(where, "properties"));
    const bool says_additional = schema.contains("additionalProperties");
    const Json additional = says_additional ? schema["additionalProperties"] : Json(false);
    if (!additional.is_boolean() && !additional.is_object()) {
      expect("a schema", additional, json_path(where, "additionalProperties"));
    }

    struct Property {
      std::string pair;  ///< rule for "name": value
      bool required;
    };
    std::vector<Property> list;
    std::vector<std::string> names;
    std::set<std::string> declared;
    const std::vector<std::string> required = required_names(schema, where);
    const std::set<std::string> needed_names(required.begin(), required.end());
    const auto add = [&](const std::string& key, const Json& value, const std::string& at) {
      const bool needed = needed_names.contains(key);
      const std::string hint = name + "-" + key;
      const std::string rule = visit(value, at, hint, depth + 1);
      const std::string pair = book_.reserve(hint + "-kv");
      book_.define(pair, fmt::format("{} space \":\" space {}", gbnf_literal(dump(Json(key))), rule));
      list.push_back({pair, needed});
      names.push_back(key);
    };
    for (const auto& [key, value] : properties.items()) {
      declared.insert(key);
      if (value == false && !needed_names.contains(key)) continue;  // must be absent
      add(key, value, json_path(json_path(where, "properties"), key));
    }
    for (const std::string& key : required) {
      if (declared.contains(key)) continue;
      const std::string at = json_path(where, "required");
      if (says_additional && additional == false) {
        refuse(at, "expected required properties that are declared, found {}", brief(Json(key)));
      }
      add(key, says_additional ? additional : Json(true), at);
    }

    book_.use("space");
    const bool open = says_additional && additional != false;
    if (list.empty() && (open ? additional == true : !says_additional && !schema.contains("properties"))) {
      return book_.use("object");
    }
    std::string more;  // further properties, each behind a comma
    std::string more_first;
    if (open) {
      const std::string rule =
          visit(additional, json_path(where, "additionalProperties"), name + "-additional", depth + 1);
      for (const auto& [key, value] : properties.items()) {
        if (value == false) names.push_back(key);
      }
      const std::string pair = book_.reserve(name + "-additional-kv");
      book_.use("char");
      book_.define(pair, fmt::format("{} space \":\" space {}", other_key_gbnf(names), rule));
      more = fmt::format("(\",\" space {})*", pair);
      more_first = fmt::format("({} {})?", pair, more);
    }
    // From the last property to the first: `behind` is what may follow once a property was written, `at_start` what may
    // follow while none was.
    std::string behind = more.empty() ? "\"\"" : more, at_start = more_first.empty() ? "\"\"" : more_first;
    for (size_t i = list.size(); i-- > 0;) {
      const std::string next_behind = book_.reserve(fmt::format("{}-rest-{}", name, i));
      const std::string next_start = book_.reserve(fmt::format("{}-from-{}", name, i));
      const Property& p = list[i];
      book_.define(next_behind, p.required ? fmt::format("\",\" space {} {}", p.pair, behind)
                                           : fmt::format("(\",\" space {})? {}", p.pair, behind));
      book_.define(next_start, p.required ? fmt::format("{} {}", p.pair, behind)
                                          : fmt::format("{} {} | {}", p.pair, behind, at_start));
      behind = next_behind;
      at_start = next_start;
    }
    return fmt::format("\"{{\" space {} \"}}\" space", at_start);
  }

  static std::vector<std::string> required_names(const Json& schema, const std::string& where) {
    std::vector<std::string> out;
    std::set<std::string> seen;
    const Json list = schema.value("required", Json::array());
    const std::string at = json_path(where, "required");
    if (!list.is_array()) expect("a list of names", list, at);
    for (const Json& name : list) {
      if (!name.is_string()) expect("a name", name, at);
      if (seen.insert(name.get<std::string>()).second) out.push_back(name.get<std::string>());
    }
    return out;
  }

  std::string array(const Json& schema, const std::string& where, const std::string& name, int depth) {
    book_.use("space");
    const uint32_t min = schema_count(schema, "minItems", where).value_or(0);
    const std::optional<uint32_t> max = schema_count(schema, "maxItems", where);
    if (max && *max < min) refuse(where, "expected minItems <= maxItems, found {} and {}", min, *max);
    const Json items = schema.value("items", Json(nullptr));
    const bool old_tuple = items.is_array();
    if (old_tuple && schema.contains("prefixItems"))
      refuse(json_path(where, "items"), "a list of items beside prefixItems is not supported");
    const Json prefix = old_tuple ? items : schema.value("prefixItems", Json::array());
    if (!prefix.is_array()) expect("a list of schemas", prefix, json_path(where, "prefixItems"));

    std::vector<std::string> first;
    for (size_t i = 0; i < prefix.size(); ++i) {
      if (max && i >= *max) break;
      const std::string at = json_path(json_path(where, old_tuple ? "items" : "prefixItems"), std::to_string(i));
      first.push_back(visit(prefix[i], at, fmt::format("{}-{}", name, i), depth + 1));
    }
    // Items behind the tuple: any number of them when `items` says what they are, or when there is no tuple at all.
    const bool closed = old_tuple || items == false || (items.is_null() && !first.empty());
    const auto n = static_cast<uint32_t>(first.size());
    const uint32_t more_min = min > n ? min - n : 0;
    const uint32_t more_max = closed ? 0 : max ? *max - n : Expression::kUnlimited;
    if (more_min > more_max) refuse(where, "expected at most as many minItems as there are items, found {}", min);
    std::string tuple = fmt::format("{}", fmt::join(first, " \",\" space "));
    if (more_max == 0) return fmt::format("\"[\" space {} \"]\" space", tuple);

    const Json item_schema = items.is_null() ? Json(true) : items;
    const std::string item = visit(item_schema, json_path(where, "items"), name + "-item", depth + 1);
    const auto repeated = [](const std::string& element, uint32_t low, uint32_t high) {
      if (high == Expression::kUnlimited) return fmt::format("({}){{{},}}", element, low);
      return fmt::format("({}){{{},{}}}", element, low, high);
    };
    const std::string another = fmt::format("\",\" space {}", item);
    if (n > 0) return fmt::format("\"[\" space {} {} \"]\" space", tuple, repeated(another, more_min, more_max));
    const uint32_t rest_max = more_max == Expression::kUnlimited ? more_max : more_max - 1;
    std::string list = fmt::format("{} {}", item, repeated(another, more_min > 0 ? more_min - 1 : 0, rest_max));
    if (more_min == 0) list = fmt::format("({})?", list);
    return fmt::format("\"[\" space {} \"]\" space", list);
  }

  std::string string(const Json& schema, const std::string& where) {
    book_.use("space");
    const uint32_t min = schema_count(schema, "minLength", where).value_or(0);
    const std::optional<uint32_t> max = schema_count(schema, "maxLength", where);
    if (max && *max < min) refuse(where, "expected minLength <= maxLength, found {} and {}", min, *max);
    const bool limited = schema.contains("minLength") || max;
    const auto pattern = schema.find("pattern"), format = schema.find("format");
    if ((pattern != schema.end()) + (format != schema.end()) + limited > 1) {
      refuse(where, "pattern, format and limits of the length together are not supported");
    }
    if (pattern != schema.end()) {
      const std::string at = json_path(where, "pattern");
      if (!pattern->is_string()) expect("a regular expression", *pattern, at);
      return fmt::format("\"\\\"\" {} \"\\\"\" space", json_pattern_gbnf(pattern->get<std::string>(), at));
    }
    if (format != schema.end()) {
      const std::string at = json_path(where, "format");
      if (!format->is_string()) expect("the name of a format", *format, at);
      const std::string name = format->get<std::string>();
      if (name != "date" && name != "time" && name != "date-time" && name != "uuid") {
        refuse(at, "expected a format of date, time, date-time, uuid, found {}", brief(*format));
      }
      return fmt::format("\"\\\"\" {} \"\\\"\" space", book_.use(name));
    }
    if (!limited) return book_.use("string");
    const std::string upper = max ? std::to_string(*max) : "";
    return fmt::format("\"\\\"\" {}{{{},{}}} \"\\\"\" space", book_.use("char"), min, upper);
  }

  std::string integer(const Json& schema, const std::string& where) {
    const std::optional<IntegerLimits> limits = schema_integer_limits(schema, where);
    if (!limits) return book_.use("integer");
    return fmt::format("{} {}", integer_range_gbnf(limits->low, limits->high), book_.use("space"));
  }

  const Json& root_;
  JsonRuleBook book_;
  std::map<std::string, std::string, std::less<>> known_;  ///< text of a schema: its rule
  size_t known_bytes_ = 0;
  size_t work_bytes_ = 0;
};

}  // namespace

std::string json_schema_gbnf(const Json& schema) {
  return Converter(schema).convert();
}

}  // namespace mneme
