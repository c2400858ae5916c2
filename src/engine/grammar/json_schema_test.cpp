#include "engine/grammar/json_schema.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/philox.h"
#include "engine/grammar/json_pattern.h"
#include "engine/grammar/json_rules.h"
#include "engine/grammar/stack_automaton.h"

namespace mneme {
namespace {

bool accepts(StackAutomaton& automaton, std::string_view text) {
  StackAutomaton::SetId state = automaton.start();
  automaton.limit_work();
  for (const char c : text) state = automaton.step(state, static_cast<unsigned char>(c));
  return automaton.is_complete(state);
}

StackAutomaton automaton_of(const std::string& gbnf) {
  return StackAutomaton(std::make_shared<Grammar>(gbnf));
}

void expect_language(const std::string& gbnf, const std::vector<std::string>& good,
                     const std::vector<std::string>& bad) {
  StackAutomaton automaton = automaton_of(gbnf);
  for (const std::string& text : good) EXPECT_TRUE(accepts(automaton, text)) << text << "\n" << gbnf;
  for (const std::string& text : bad) EXPECT_FALSE(accepts(automaton, text)) << text << "\n" << gbnf;
}

void expect_schema(std::string_view schema, const std::vector<std::string>& good, const std::vector<std::string>& bad) {
  expect_language(json_schema_gbnf(parse_json(schema, "schema")), good, bad);
}

void expect_refused_schema(const Json& schema, std::string_view part) {
  try {
    Grammar grammar(json_schema_gbnf(schema));
    ADD_FAILURE() << "accepted: " << schema;
  } catch (const Error& e) {
    const std::string message = e.what();
    EXPECT_NE(message.find(part), std::string::npos) << message << "\nfor " << schema;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_LT(message.size(), 700u) << message;
  }
}

void expect_refused(std::string_view schema, std::string_view part) {
  expect_refused_schema(parse_json(schema, "schema"), part);
}

TEST(JsonGrammar, AcceptsJsonAndNothingElse) {
  expect_language(json_value_gbnf(),
                  {"{}", "[]", "null", "true", "false", "0", "-0", "-12.5e+10", "1E5", "\"\"", R"("a\n\"\\\u00e9é😀")",
                   R"({"a": [1, 2, {"b": null}], "c": "d"})", "[ [ ], { } ]", "{\n  \"a\": 1\n}",
                   "[[[[[[[[[[]]]]]]]]]]", R"("\uD83D\uDE00")", "1 "},
                  {"",
                   "{",
                   "[1,]",
                   "{\"a\"}",
                   "{\"a\":1,}",
                   "{a:1}",
                   "'a'",
                   "01",
                   "1.",
                   ".5",
                   "+1",
                   "1e",
                   "nul",
                   "True",
                   "\"\n\"",
                   "\"\t\"",
                   R"("\x41")",
                   R"("\uD83D")",
                   R"("\uDE00\uD83D")",
                   "\"a",
                   "[1 2]",
                   "{} {}",
                   "1e999",
                   "\"\x80\"",
                   "12345678901234567"});
  expect_language(json_object_gbnf(), {"{}", R"({"a":1})"}, {"[]", "1", "\"a\""});
}

TEST(JsonSchema, Types) {
  expect_schema("{}", {"1", "{}", "[null]"}, {"", "x"});
  expect_schema("true", {"1", "{}"}, {""});
  expect_schema(R"({"type": "string"})", {"\"x\""}, {"1"});
  expect_schema(R"({"type": ["integer", "null"], "title": "n"})", {"12", "null"}, {"1.5", "\"\""});
  expect_schema(R"({"type": "boolean"})", {"true", "false"}, {"1"});
  expect_schema(R"({"type": "number"})", {"1", "-0.25", "1e10"}, {"\"1\""});
  expect_schema(R"({"enum": ["a", 1, null, {"b": [2]}]})", {"\"a\"", "1", "null", "{\"b\":[2]}"}, {"2", "\"b\""});
  expect_schema(R"({"type": "string", "enum": ["a", 1]})", {"\"a\""}, {"1"});
  expect_schema(R"({"const": "x\"y"})", {R"("x\"y")"}, {"\"x\""});
  expect_schema(R"({"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 2}]})", {"null", "\"ab\""},
                {"\"abc\"", "1"});
}

TEST(JsonSchema, Objects) {
  const char* schema =
      R"({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}, "c": {"type": "null"}},
                           "required": ["b"]})";
  expect_schema(
      schema, {R"({"b": "x"})", R"({"a": 1, "b": "x"})", R"({"a":1,"b":"x","c":null})", R"({"b":"","c":null})"},
      {"{}", R"({"a": 1})", R"({"b": "x", "a": 1})", R"({"b": "x", "d": 1})", R"({"b": 1})", R"({"b":"x",})"});
  expect_schema(R"({"properties": {"a": {}, "b": {}}})", {"{}", R"({"a":1})", R"({"b":1})", R"({"a":1,"b":2})"},
                {R"({,"b":1})"});
  expect_schema(R"({"type": "object"})", {"{}", R"({"x": [1]})"}, {"[]"});
  expect_schema(R"({"type": "object", "additionalProperties": false})", {"{}"}, {R"({"x": 1})"});
  expect_schema(R"({"type": "object", "properties": {}})", {"{}"}, {R"({"x": 1})"});
  expect_schema(R"({"additionalProperties": {"type": "integer"}})", {"{}", R"({"x": 1})", R"({"x": 1, "y": 2})"},
                {R"({"x": "1"})"});
  expect_schema(
      R"({"properties": {"ab": {"type": "integer"}, "ac\"": {"type": "null"}}, "required": ["ab"], "additionalProperties": {"type": "string"}})",
      {R"({"ab": 1})", R"({"ab": 1, "a": "x"})", R"({"ab": 1, "abc": "x", "b": "y", "": ""})",
       R"({"ab": 1, "ac\"": null, "ad": "s"})"},
      {R"({"ab": "x"})", R"({"ab": 1, "ab": "x"})", R"({"ab": 1, "a": 2})", R"({"ab": 1, "ac\"": "s"})"});
  // Names longer than what the grammar of other names looks at.
  const std::string name(40, 'n'), other = std::string(31, 'n') + 'm';
  expect_schema(fmt::format(R"({{"properties": {{"{}": {{"const": 1}}}}, "additionalProperties": true}})", name),
                {fmt::format(R"({{"{}":1,"{}":2}})", name, other), R"({"n":2})"},
                {fmt::format(R"({{"{}":2}})", name), fmt::format(R"({{"{0}":1,"{0}":2}})", name)});
  expect_schema(R"({"type": "object", "required": ["z"]})", {R"({"z": [1]})"}, {"{}"});
  expect_schema(R"({"properties": {"é\n": {"const": 1}}})", {R"({"é\n": 1})"}, {R"({"e": 1})"});
}

TEST(JsonSchema, Arrays) {
  expect_schema(R"({"type": "array", "items": {"type": "integer"}})", {"[]", "[1]", "[1, 2,3]"}, {"[\"a\"]", "[1,]"});
  expect_schema(R"({"items": {"const": 0}, "minItems": 2, "maxItems": 3})", {"[0,0]", "[0,0,0]"},
                {"[]", "[0]", "[0,0,0,0]"});
  expect_schema(R"({"items": {"const": 0}, "maxItems": 1})", {"[]", "[0]"}, {"[0,0]"});
  expect_schema(R"({"items": {"const": 0}, "minItems": 1})", {"[0]", "[0,0,0,0,0]"}, {"[]"});
  expect_schema(R"({"type": "array", "maxItems": 0})", {"[]", "[ ]"}, {"[0]"});
  expect_schema(R"({"prefixItems": [{"const": 1}, {"type": "string"}]})", {"[1,\"\"]"}, {"[]", "[1]", "[1,\"\",2]"});
  expect_schema(R"({"items": [{"const": 1}]})", {"[1]"}, {"[]", "[1,1]"});
  expect_schema(R"({"prefixItems": [{"const": 1}], "items": {"const": 2}, "minItems": 2, "maxItems": 3})",
                {"[1,2]", "[1,2,2]"}, {"[1]", "[1,2,2,2]"});
  expect_schema(R"({"prefixItems": [{"const": 1}, {"const": 2}], "maxItems": 1})", {"[1]"}, {"[]", "[1,2]"});
}

TEST(JsonSchema, Strings) {
  expect_schema(R"({"minLength": 2, "maxLength": 3})", {"\"ab\"", "\"é😀x\"", R"("\n\uD83D\uDE00")"},
                {"\"a\"", "\"abcd\""});
  expect_schema(R"({"type": "string", "minLength": 1})", {"\"a\"", "\"aaaaaaaaaaaaaaa\""}, {"\"\""});
  expect_schema(R"({"format": "date"})", {"\"2024-02-29\"", "\"2000-02-29\"", "\"2023-12-31\"", "\"0001-04-30\""},
                {"\"2023-02-29\"", "\"1900-02-29\"", "\"2023-04-31\"", "\"2023-13-01\"", "\"2023-00-10\"",
                 "\"2023-01-00\"", "\"23-01-01\""});
  expect_schema(R"({"format": "time"})", {"\"23:59:59Z\"", "\"00:00:00.123+05:30\""},
                {"\"24:00:00Z\"", "\"12:60:00Z\"", "\"12:00:00\""});
  expect_schema(R"({"format": "date-time"})", {"\"2024-02-29T10:00:00Z\""},
                {"\"2024-02-30T10:00:00Z\"", "\"2024-02-29\""});
  expect_schema(R"({"format": "uuid"})", {"\"123e4567-e89b-12d3-a456-426614174000\""},
                {"\"123e4567e89b12d3a456426614174000\""});
}

TEST(JsonSchema, Patterns) {
  expect_schema(R"({"pattern": "^[a-c]{2}(-\\d+)?$"})", {"\"ab\"", "\"ca-12\""}, {"\"a\"", "\"abd\"", "\"ab-\""});
  expect_schema(R"({"pattern": "^(?:a|b.|)x*?$"})", {"\"\"", "\"a\"", "\"b?xx\"", R"("b\"")"},
                {"\"b\"", "\"c\"", R"("b\n")"});
  expect_schema(R"({"pattern": "^\\w\\s[^\"\\\\]\\u00e9\\uD83D\\uDE00\\.$"})", {"\"_ zé😀.\""},
                {R"("_ \"é😀.")", "\"- zé😀.\""});
  expect_schema(R"({"pattern": "^[\\t\"\\\\-]$"})", {R"("\t")", R"("\"")", R"("\\")", "\"-\""}, {"\"\t\"", "\"t\""});
  expect_schema(R"({"pattern": "^$"})", {"\"\""}, {"\"a\""});
  expect_schema(R"({"pattern": "^[\\d-x]$"})", {"\"5\"", "\"-\"", "\"x\""}, {"\"a\""});
  for (const char* bad :
       {"abc",      "^abc",  "abc$",        "^a|b$",           "^(?=a)$",      "^(?<n>a)$", "^\\\\1$",
        "^\\\\bx$", "^a**$", "^a{2,1}$",    "^[z-a]$",         "^[a$",         "^(a$",      "^a)$",
        "^*$",      "^a$b$", "^\\\\uD800$", "^[^\\\\d\\\\D]$", "^a{9999999}$", "^a^$",      "^\\\\p{L}$"}) {
    expect_refused(fmt::format(R"({{"properties": {{"p": {{"pattern": "{}"}}}}}})", bad), "#/properties/p/pattern");
  }
}

TEST(JsonSchema, IntegerLimits) {
  expect_schema(R"({"type": "integer", "minimum": -3, "maximum": 12})", {"-3", "-1", "0", "9", "10", "12"},
                {"-4", "13", "-0", "00", "1.0", "100"});
  expect_schema(R"({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 2})", {"1"}, {"0", "2"});
  expect_schema(R"({"type": "integer", "minimum": 1.5, "maximum": 3.5})", {"2", "3"}, {"1", "4"});
  expect_schema(R"({"type": "integer", "minimum": 99})", {"99", "100", "9999999999999999"},
                {"98", "10000000000000000"});
  expect_schema(R"({"type": "integer", "maximum": -99})", {"-99", "-100"}, {"-98", "0", "99"});
  expect_schema(R"({"type": "integer", "minimum": -9223372036854775808, "maximum": 9223372036854775807})",
                {"-9223372036854775808", "9223372036854775807", "0"}, {"9223372036854775808", "-9223372036854775809"});
  expect_schema(R"({"type": "integer", "maximum": 1e300})", {"9999999999999999"}, {});
  expect_refused(R"({"type": "integer", "minimum": 1e300})", "#/minimum");
  expect_refused(R"({"type": "integer", "minimum": 5, "maximum": 4})", "5 to 4");
  expect_refused(R"({"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 6})", "6 to 5");
}

TEST(JsonSchema, IntegerRangesAreExact) {
  PhiloxStream random(3);
  for (int round = 0; round < 400; ++round) {
    const int64_t spread = round < 200 ? 150 : 2500;
    int64_t low = static_cast<int64_t>(random.next_below(static_cast<uint64_t>(2 * spread))) - spread;
    int64_t high = static_cast<int64_t>(random.next_below(static_cast<uint64_t>(2 * spread))) - spread;
    if (low > high) std::swap(low, high);
    StackAutomaton automaton = automaton_of("root ::= " + integer_range_gbnf(low, high));
    const int64_t step = round < 200 ? 1 : 7;
    for (int64_t x = -spread - 20; x <= spread + 20; x += step) {
      ASSERT_EQ(accepts(automaton, std::to_string(x)), x >= low && x <= high) << x << " in " << low << ".." << high;
    }
    for (const int64_t x : {low - 1, low, high, high + 1}) {
      ASSERT_EQ(accepts(automaton, std::to_string(x)), x >= low && x <= high);
    }
  }
}

TEST(JsonSchema, ReferencesAndRecursion) {
  const char* tree = R"({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "required": ["v"],
      "properties": {"v": {"type": "integer"}, "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}}}}})";
  expect_schema(tree, {R"({"v":1})", R"({"v":1,"next":{"v":2,"next":null}})"}, {R"({"v":1,"next":{}})", "{}"});
  expect_schema(R"({"type": "array", "items": {"$ref": "#"}})", {"[]", "[[],[[]]]"}, {"[1]"});
  expect_schema(R"({"properties": {"a": {"const": 1}, "b": {"$ref": "#/properties/a"}}, "required": ["b"]})",
                {R"({"b":1})"}, {R"({"b":2})"});
  expect_schema(R"({"$ref": "#/definitions/a~1b~0c%20d", "definitions": {"a/b~c d": {"const": 1}}})", {"1"}, {"2"});
  expect_schema(R"({"$ref": "#/anyOf/1", "anyOf": [{"const": 1}, {"type": "integer"}]})", {"1", "2"},
                {"1.5"});  // both apply
  expect_schema(R"({"properties": {"next": {"allOf": [{"$ref": "#"}], "description": "again"}}})",
                {"{}", R"({"next":{"next":{}}})"}, {"1"});
  expect_refused(R"({"$ref": "#/a", "a": 1})", "#");
  expect_refused(R"({"$ref": "#"})", "leads to itself");
  expect_refused(R"({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}})",
                 "leads to itself");
  expect_refused(R"({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}}, "$ref": "#/$defs/a"})",
                 "lead to themselves");
  expect_refused(R"({"$ref": "http://example.com/x"})", "#/$ref");
  expect_refused(R"({"$ref": "#/$defs/none"})", "a place in this schema");
  expect_refused(R"({"properties": {"a": {"$ref": "#"}}, "required": ["a"]})", "matches no finite text");
  expect_refused(R"({"anyOf": [{"$ref": "#"}, {"type": "null"}]})", "left recursion");
}

TEST(JsonSchema, AllOfJoins) {
  expect_schema(R"({"allOf": [{"properties": {"a": {"type": "integer", "minimum": 2}}, "required": ["a"]},
                              {"properties": {"b": {"const": 1}, "a": {"maximum": 5, "type": "integer"}}}]})",
                {R"({"a":2})", R"({"a":5,"b":1})"}, {"{}", R"({"a":6})", R"({"a":1})", R"({"b":1})"});
  expect_schema(
      R"({"type": "string", "allOf": [{"minLength": 2}, {"minLength": 1, "maxLength": 4}, {"maxLength": 3}]})",
      {"\"ab\"", "\"abc\""}, {"\"a\"", "\"abcd\""});
  expect_schema(R"({"allOf": [{"type": ["string", "integer"]}, {"type": ["number", "null"]}]})", {"3"},
                {"\"a\"", "null", "3.5"});
  expect_schema(R"({"type": "object", "properties": {"k": {"type": "string"}}, "required": ["k"],
                    "anyOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"properties": {"b": {"const": 2}}, "required": ["b"]}]})",
                {R"({"k":"x","a":1})", R"({"k":"x","b":2})"}, {R"({"k":"x"})", R"({"a":1})"});
  expect_schema(R"({"allOf": [{"enum": [1, 2, 3]}, {"enum": [2, 3, 4]}]})", {"2", "3"}, {"1", "4"});
  expect_refused(R"({"allOf": [{"pattern": "^a$"}, {"pattern": "^b$"}]})", "'pattern', in #/allOf");
  expect_refused(R"({"allOf": [{"type": "string"}, {"type": "integer"}]})", "'type'");
  expect_refused(R"({"allOf": [{"properties": {"a": {}}, "additionalProperties": false}, {"properties": {"b": {}}}]})",
                 "additionalProperties");
  expect_refused(R"({"allOf": [{"prefixItems": [{"const": 1}]}, {"items": {"const": 2}}]})", "'items'");
  expect_refused(R"({"allOf": [{"items": [{"const": 1}]}, {"prefixItems": [{"const": 2}]}]})", "'items'");
  expect_schema(
      R"({"allOf": [{"prefixItems": [{"const": 1}], "items": {"const": 2}}, {"minItems": 2, "maxItems": 3}]})",
      {"[1,2]", "[1,2,2]"}, {"[1]", "[1,2,2,2]"});
  expect_refused(R"({"allOf": []})", "a list of schemas");
}

TEST(JsonSchema, UnsupportedKeywordsAreNamedWithTheirPath) {
  expect_refused(R"({"properties": {"a": {"items": {"not": {}}}}})",
                 "'not' is not supported, in #/properties/a/items/not");
  expect_refused(R"({"properties": {"x/y~z": {"if": {}}}})", "#/properties/x~1y~0z/if");
  for (const char* keyword :
       {"uniqueItems", "contains", "patternProperties", "not", "if", "then", "propertyNames", "minProperties",
        "dependentRequired", "unevaluatedProperties", "multipleOf", "$dynamicRef", "nonsense", "nullable"}) {
    expect_refused(fmt::format(R"({{"type": "object", "{}": true}})", keyword), fmt::format("#/{}", keyword));
  }
  expect_schema(R"({"type": "array", "uniqueItems": false, "items": {"const": 1}})", {"[1,1]"}, {});
  expect_schema(
      R"({"type": "null", "title": "t", "description": "d", "default": 1, "examples": [], "$schema": "s", "x-foo": 1})",
      {"null"}, {"1"});
  expect_refused(R"({"type": "number", "minimum": 1})", "#/minimum");
  expect_refused(R"({"minimum": 1})", "without \"type\": \"integer\"");
  expect_refused(R"({"type": "string", "format": "email"})", "#/format");
  expect_refused(R"({"type": "string", "pattern": "^a$", "minLength": 1})", "together");
  expect_refused(R"({"enum": ["a"], "minLength": 3})", "#/minLength");
}

TEST(JsonSchema, MalformedSchemasAreErrors) {
  for (const char* bad : {"1",
                          "[]",
                          "null",
                          "false",
                          R"({"type": 1})",
                          R"({"type": "text"})",
                          R"({"type": "value"})",
                          R"({"type": ["null", "space"]})",
                          R"({"type": []})",
                          R"({"type": [1]})",
                          R"({"properties": []})",
                          R"({"properties": {"a": 1}})",
                          R"({"required": "a"})",
                          R"({"required": [1]})",
                          R"({"items": 1})",
                          R"({"prefixItems": {}})",
                          R"({"minItems": -1})",
                          R"({"minItems": 1.5})",
                          R"({"minLength": "1"})",
                          R"({"minItems": 3, "maxItems": 2})",
                          R"({"minLength": 3, "maxLength": 2})",
                          R"({"maxLength": 1e12})",
                          R"({"enum": []})",
                          R"({"enum": 1})",
                          R"({"type": "string", "enum": [1]})",
                          R"({"anyOf": []})",
                          R"({"anyOf": {}})",
                          R"({"$ref": 1})",
                          R"({"additionalProperties": 1})",
                          R"({"type": "integer", "minimum": "1"})",
                          R"({"pattern": 1})",
                          R"({"format": 1})",
                          R"({"properties": {"a": false}, "required": ["a"]})",
                          R"({"required": ["a"], "additionalProperties": false})"}) {
    expect_refused(bad, "[json schema]");
  }
}

TEST(JsonSchema, MessagesStayOneShortLine) {
  const std::string text(5000, 'k');
  expect_refused(R"({"new\nline": 1})", R"('new\nline' is not supported, in #/new\nline)");
  expect_refused(fmt::format(R"({{"{}": 1}})", text), "kkk...' is not supported, in #/kkk");
  expect_refused(fmt::format(R"({{"properties": {{"{}": {{"not": 1}}}}}})", text),
                 "'not' is not supported, in #/properties/kkk");
  expect_refused(fmt::format(R"({{"properties": {{"a\nb": {{"$ref": "#/{}\n"}}}}}})", text), "a place in this schema");
  expect_refused(fmt::format(R"({{"type": "{}"}})", text), "found \"kkk");
  expect_refused(fmt::format(R"({{"pattern": "^\n{}("}})", text), "')' at the end of a group");
  expect_refused(fmt::format(R"({{"enum": ["{}"], "const": 1}})", text), "together");
}

TEST(JsonSchema, NestingAndSizeAreLimited) {
  Json deep = {{"type", "null"}};
  for (int i = 0; i < 200; ++i) deep = Json{{"items", std::move(deep)}};
  expect_refused_schema(deep, "at most 128 nested schemas");
  Json joined = {{"type", "null"}};
  for (int i = 0; i < 200; ++i) joined = Json{{"allOf", Json::array({std::move(joined)})}};
  expect_refused_schema(joined, "allOf and $ref that end");
  // Every definition stands twice in the one before it: 2^60 parts.
  Json doubling = {{"$ref", "#/$defs/d0"}};
  for (int i = 0; i < 60; ++i) {
    const Json next = {{"$ref", fmt::format("#/$defs/d{}", i + 1)}};
    doubling["$defs"][fmt::format("d{}", i)] = {{"allOf", Json::array({next, next})}};
  }
  doubling["$defs"]["d60"] = {{"type", "null"}};
  expect_refused_schema(doubling, "too many parts");
  expect_refused_schema({{"description", std::string(2'000'000, 'x')}}, "a schema of at most");
}

/// Quadratic work in what one schema can hold would take minutes here.
TEST(JsonSchema, LargeSchemasTakeLittleTime) {
  Json numbers = Json::array(), names = Json::array(), ways = Json::array(), foreign = Json::object();
  for (int i = 0; i < 15000; ++i) numbers.push_back(i);
  for (int i = 0; i < 3000; ++i) {
    names.push_back(fmt::format("n{}", i));
    ways.push_back({{"const", fmt::format("é{}", i)}, {"title", "x"}});
  }
  for (int i = 0; i < 2000; ++i) foreign[fmt::format("éé{}", i)] = {{"type", "null"}};
  expect_schema(Json{{"allOf", Json::array({Json{{"enum", numbers}}, Json{{"enum", numbers}}})}}.dump(), {"14999"},
                {"15000"});
  expect_schema(Json{{"type", "object"}, {"required", names}}.dump(), {}, {"{}"});
  expect_refused_schema({{"required", numbers}}, "a name");
  expect_schema(Json{{"anyOf", ways}}.dump(), {"\"é7\""}, {"\"é\""});
  expect_schema(Json{{"properties", foreign}, {"additionalProperties", {{"type", "null"}}}}.dump(), {R"({"x":null})"},
                {R"({"éé1":1})"});
}

}  // namespace
}  // namespace mneme
