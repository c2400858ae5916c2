// Random schemas over everything that json_schema_gbnf() supports: whatever a walk over allowed tokens says is JSON and
// fits the schema, and a schema with a keyword that is not supported is refused by its name.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/philox.h"
#include "engine/grammar/grammar_state.h"
#include "engine/grammar/json_ending.h"
#include "engine/grammar/json_schema.h"
#include "engine/grammar/schema_validator.h"
#include "engine/sampling/test_vocabulary.h"

namespace mneme {
namespace {

class RandomSchema {
 public:
  explicit RandomSchema(PhiloxStream& random) : random_(random) {}

  /// A schema with definitions; those refer to themselves only where the reference may be left out.
  Json make() {
    Json root = schema(3);
    root["$defs"] = {{"list",
                      {{"type", "object"},
                       {"properties", {{"value", schema(1)}, {"next", {{"$ref", "#/$defs/list"}}}}},
                       {"required", {"value"}}}},
                     {"tree", {{"type", "array"}, {"items", {{"$ref", "#/$defs/tree"}}}, {"maxItems", below(4)}}},
                     {"a/b~c", schema(0)}};
    return root;
  }

 private:
  uint64_t below(uint64_t n) { return random_.next_below(n); }
  bool chance() { return below(2) == 0; }
  std::string name() {
    static const char* kNames[] = {
        "a", "b", "ab", "é", "quote\"", "", "back\\slash", "next", "a name that is longer than thirty-two characters"};
    return kNames[below(std::size(kNames))];
  }

  Json schema(int depth) {
    switch (below(depth > 0 ? 13 : 7)) {
      case 0:
        return {{"type", "boolean"}};
      case 1:
        return integer();
      case 2:
        return {{"type", "number"}, {"description", "x"}};
      case 3:
      case 4:
        return string();
      case 5:
        return {{"enum", Json::array({"x", 1, nullptr, Json::array({true, "é\n"}), Json{{"k", -2.5}}})}};
      case 6:
        return {{"const", chance() ? Json("a\"b") : Json(12)}};
      case 7:
        return {{"type", "array"}, {"items", schema(depth - 1)}, {"minItems", below(3)}, {"maxItems", 2 + below(3)}};
      case 8:
        return tuple(depth);
      case 9:
        return {{chance() ? "anyOf" : "oneOf", Json::array({schema(depth - 1), schema(depth - 1)})}};
      case 10:
        return joined(depth);
      case 11:
        return reference();
      default:
        return object(depth);
    }
  }

  Json integer() {
    const auto low = static_cast<int64_t>(below(2000)) - 1000;
    Json out = {{"type", "integer"}};
    if (chance()) out[chance() ? "minimum" : "exclusiveMinimum"] = low;
    if (chance()) out["maximum"] = static_cast<double>(low) + 2.5 + static_cast<double>(below(300));
    if (chance()) out["type"] = Json::array({"integer", "null"});
    return out;
  }

  Json string() {
    static const char* kPatterns[] = {"^[a-c]{2,4}$", "^(yes|no|)\\d*$", "^\\w+[.,\"]?$", "^[^x-z]\\s{1,2}$",
                                      "^(a(b|c)*){1,3}$"};
    static const char* kFormats[] = {"date", "time", "date-time", "uuid"};
    switch (below(4)) {
      case 0:
        return {{"type", "string"}};
      case 1:
        return {{"type", "string"}, {"minLength", below(4)}, {"maxLength", 3 + below(3)}};
      case 2:
        return {{"type", "string"}, {"pattern", kPatterns[below(std::size(kPatterns))]}};
      default:
        return {{"type", "string"}, {"format", kFormats[below(std::size(kFormats))]}};
    }
  }

  Json tuple(int depth) {
    Json out = {{"type", "array"},
                {chance() ? "prefixItems" : "items", Json::array({schema(depth - 1), schema(depth - 1)})}};
    if (out.contains("prefixItems") && chance()) out["items"] = schema(depth - 1);
    if (out["items"].is_null()) out.erase("items");
    if (out.contains("prefixItems") && out.contains("items")) out["maxItems"] = below(5);
    return out;
  }

  Json object(int depth) {
    Json out = {{"type", "object"}, {"properties", Json::object()}, {"required", Json::array()}};
    for (uint64_t n = below(4); n > 0; --n) {
      const std::string key = name();
      out["properties"][key] = schema(depth - 1);
      if (chance()) out["required"].push_back(key);
    }
    if (chance()) out["additionalProperties"] = chance() ? Json(chance()) : schema(depth - 1);
    return out;
  }

  /// Parts that go together: one description of an object in two pieces, with or without a reference beside it.
  Json joined(int depth) {
    Json one = {{"type", "object"},
                {"properties", {{"a", schema(depth - 1)}, {"shared", {{"type", "string"}, {"minLength", 1}}}}}};
    Json two = {{"properties", {{"b", schema(depth - 1)}, {"shared", {{"type", "string"}, {"maxLength", 3}}}}},
                {"required", {"b"}}};
    switch (below(4)) {
      case 0:
        return {{"allOf", Json::array({one, two})}};
      case 1:
        two["allOf"] = Json::array({one});
        return two;
      case 2:
        one["anyOf"] = Json::array({two, Json{{"required", {"a"}}}});
        return one;
      default:
        return {
            {"$ref", "#/$defs/list"}, {"required", {"next"}}, {"properties", {{"next", {{"required", {"value"}}}}}}};
    }
  }

  Json reference() {
    static const char* kTargets[] = {"#/$defs/list", "#/$defs/tree", "#/$defs/a~1b~0c"};
    return {{"$ref", kTargets[below(std::size(kTargets))]}};
  }

  PhiloxStream& random_;
};

/// All bytes, and longer tokens as models have them: several terminals at once, parts of characters, white space.
const ListVocabulary& vocabulary() {
  static const ListVocabulary kVocabulary = [] {
    std::vector<std::string> pieces = {"</s>"};
    for (int byte = 0; byte < 256; ++byte) pieces.emplace_back(1, static_cast<char>(byte));
    for (const char* piece : {"{\"",
                              "\":",
                              "\": ",
                              "\",",
                              "\", \"",
                              "\"}",
                              "\"]",
                              "[{",
                              "]}",
                              "}}",
                              "}]",
                              "[]",
                              "{}",
                              "true",
                              "false",
                              "null",
                              "[\"",
                              ",[",
                              "12",
                              "345",
                              "-1",
                              "0.5",
                              "e+1",
                              "é",
                              "ü",
                              "€",
                              "😀",
                              "\xF0\x9F",
                              "\x98\x80",
                              "\xC3",
                              "a\xC3",
                              "next",
                              "val",
                              "ue\":",
                              "a\":",
                              "b\": ",
                              "\n  ",
                              "  ",
                              "\\u00",
                              "\\n",
                              "\\\"",
                              "yes",
                              "no1",
                              "2024-0",
                              "-29T",
                              "00:00",
                              "Z\"",
                              "abc",
                              "a name that is",
                              " longer than thirty-two",
                              " characters\":",
                              "\"a name that is longer than thirty-two characters\":"}) {
      pieces.emplace_back(piece);
    }
    return ListVocabulary(std::move(pieces), {0});
  }();
  return kVocabulary;
}

/// Text of a random walk over allowed tokens: free at first, then towards the end.
std::string walk(const std::shared_ptr<TokenMatcher>& matcher, PhiloxStream& random) {
  GrammarState state(matcher);
  std::string text;
  const uint64_t n_free = random.next_below(40);
  for (uint64_t i = 0; i < 5000; ++i) {
    const TokenMask& mask = state.mask();
    EXPECT_EQ(mask.allows(0), state.is_complete());
    if (mask.allows(0) && (i >= n_free || mask.count() == 1)) return text;
    const bool in_string = ends_inside_string(text), long_ones = i < n_free && random.next_below(2) == 0;
    std::vector<TokenId> allowed;
    int best = -1;
    for (TokenId id = 1; id < static_cast<TokenId>(vocabulary().size()); ++id) {
      if (!mask.allows(id)) continue;
      const std::string piece = vocabulary().piece(id);
      const bool is_long = piece.size() > 1;
      const int close = i < n_free ? (long_ones && is_long ? 1 : 0) : is_long ? 0 : closeness(piece[0], in_string);
      if (close < best) continue;
      if (close > best) allowed.clear();
      best = close;
      allowed.push_back(id);
    }
    if (allowed.empty()) {
      ADD_FAILURE() << "no token is allowed after " << text;
      return text;
    }
    const TokenId id = allowed[random.next_below(allowed.size())];
    text += vocabulary().piece(id);
    state.accept(id);
  }
  ADD_FAILURE() << "no end after " << text;
  return text;
}

TEST(JsonWalk, AllowedTokensAlwaysEndInJsonThatFitsTheSchema) {
  PhiloxStream random(12);
  Ledger ledger;
  const auto trie = std::make_shared<const VocabularyTrie>(vocabulary(), ledger);
  int n_schemas = 0, n_refused = 0;
  size_t n_bytes = 0;
  while (n_schemas < 200) {
    const Json schema = RandomSchema(random).make();
    std::string gbnf;
    try {
      gbnf = json_schema_gbnf(schema);
    } catch (const Error& e) {
      // Random parts that cannot be joined; nothing else may be wrong with these schemas.
      EXPECT_THAT(e.what(), testing::AnyOf(testing::HasSubstr("that can be joined"), testing::HasSubstr("are declared"),
                                           testing::HasSubstr("together with enum or const")))
          << schema;
      ++n_refused;
      continue;
    }
    ++n_schemas;
    const auto matcher = TokenMatcher::create(std::make_shared<const Grammar>(gbnf), trie, ledger);
    const SchemaValidator validator(schema);
    for (int i = 0; i < 4; ++i) {
      const std::string text = walk(matcher, random);
      n_bytes += text.size();
      Json value;
      ASSERT_NO_THROW(value = parse_json(text, "answer")) << text << "\n" << schema;
      ASSERT_TRUE(validator.fits(value)) << text << "\n" << schema << "\n" << gbnf;
    }
  }
  EXPECT_LT(n_refused, 100);
  EXPECT_GT(n_bytes, 20000u);
}

/// Places of a schema where a keyword may stand: not in definitions, and not in lists that may end before an item.
void collect_places(Json& schema, std::vector<Json*>& out) {
  if (!schema.is_object()) return;
  out.push_back(&schema);
  if (schema.value("maxItems", 3) < 3) return;
  for (const char* keyword : {"items", "additionalProperties"}) {
    if (schema.contains(keyword)) collect_places(schema[keyword], out);
  }
  for (const char* keyword : {"properties", "allOf", "anyOf", "oneOf", "prefixItems"}) {
    if (!schema.contains(keyword)) continue;
    for (auto& [key, part] : schema[keyword].items()) collect_places(part, out);
  }
}

TEST(JsonWalk, UnsupportedKeywordsAreRefusedByNameAnywhere) {
  PhiloxStream random(13);
  static const char* kKeywords[] = {
      "not",        "if",           "patternProperties", "contains", "dependentRequired", "unevaluatedItems",
      "multipleOf", "propertyNames"};
  for (int n = 0; n < 200;) {
    Json schema = RandomSchema(random).make();
    try {
      json_schema_gbnf(schema);
    } catch (const Error&) {
      continue;
    }
    ++n;
    std::vector<Json*> places;
    collect_places(schema, places);
    const std::string keyword = kKeywords[random.next_below(std::size(kKeywords))];
    Json& place = *places[random.next_below(places.size())];
    place[keyword] = Json::object();
    try {
      json_schema_gbnf(schema);
      ADD_FAILURE() << "accepted " << keyword << " in " << schema;
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), testing::HasSubstr(keyword)) << schema;
      EXPECT_THAT(e.what(), testing::HasSubstr("in #")) << schema;
    }
  }
}

}  // namespace
}  // namespace mneme
