// White-space rules, limits of the sandbox, and where text comes from. Expressions are in expressions_test.cpp.
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "model/chat/jinja/print.h"
#include "model/chat/jinja/template.h"
#include "model/chat/jinja/text_ops.h"

namespace mneme::jinja {
namespace {

Text render_text(const std::string& source, const Json& context = Json::object(), const Limits& limits = {}) {
  Runtime runtime(limits, {});
  Template::Variables variables;
  for (const auto& [name, value] : context.items()) variables.emplace_back(name, from_json(runtime, value, true));
  return Template(source).render(runtime, variables);
}

std::string render(const std::string& source, const Json& context = Json::object(), const Limits& limits = {}) {
  return std::string(render_text(source, context, limits).view());
}

std::string error_of(const std::string& source, const Json& context = Json::object(), const Limits& limits = {}) {
  try {
    return "no error: " + render(source, context, limits);
  } catch (const Error& e) {
    EXPECT_TRUE(e.code() == ErrorCode::kInvalidArgument || e.code() == ErrorCode::kUnsupported);
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos);
    return e.what();
  }
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// The text with data in angle brackets: "a<b>c".
std::string marked(const Text& text) {
  std::string out;
  text.for_each_run(
      [&](std::string_view part, bool is_data) { out += is_data ? "<" + std::string(part) + ">" : std::string(part); });
  return out;
}

// White space. Signs at the left and right of a tag: none, "-", "+".

struct SpaceCase {
  const char *left, *right, *block, *variable;
};

TEST(JinjaWhiteSpace, NineCombinationsOfSigns) {
  // Around the tag stand "x \n  " and "\n y".
  const SpaceCase cases[] = {
      {"", "", "x \n y", "x \n  1\n y"},    {"", "-", "x \ny", "x \n  1y"},    {"", "+", "x \n\n y", nullptr},
      {"-", "", "x y", "x1\n y"},           {"-", "-", "xy", "x1y"},           {"-", "+", "x\n y", nullptr},
      {"+", "", "x \n   y", "x \n  1\n y"}, {"+", "-", "x \n  y", "x \n  1y"}, {"+", "+", "x \n  \n y", nullptr},
  };
  for (const auto& each : cases) {
    const std::string left = each.left;
    const std::string right = each.right;
    EXPECT_EQ(render("x \n  {%" + left + " set q = 1 " + right + "%}\n y"), each.block) << left << "|" << right;
    EXPECT_EQ(render("x \n  {#" + left + " note " + right + "#}\n y"), each.block) << left << "|" << right;
    const std::string variable = "x \n  {{" + left + " 1 " + right + "}}\n y";
    if (each.variable != nullptr) {
      EXPECT_EQ(render(variable), each.variable) << left << "|" << right;
    } else {
      EXPECT_TRUE(contains(error_of(variable), "expected an expression")) << variable;  // "+" is an operator there.
    }
  }
}

TEST(JinjaWhiteSpace, BlanksGoOnlyBetweenLineStartAndBlock) {
  EXPECT_EQ(render("  {% if true %}a{% endif %}"), "a");
  EXPECT_EQ(render("b  {% if true %}a{% endif %}"), "b  a");
  EXPECT_EQ(render("{{ 1 }}  {% if true %}a{% endif %}"), "1  a");
  EXPECT_EQ(render("{% if true %}\n  {% if true %}a{% endif %}\n  {% endif %}c"), "ac");
  EXPECT_EQ(render("  {{ 1 }}  \n"), "  1  ");
  EXPECT_EQ(render("\t {# c #}x"), "x");
}

TEST(JinjaWhiteSpace, OneLineEndAfterABlockGoes) {
  EXPECT_EQ(render("{% if true %}\n\na{% endif %}"), "\na");
  EXPECT_EQ(render("{% if true %} \na{% endif %}"), " \na");
  EXPECT_EQ(render("{# c #}\n\nx"), "\nx");
  EXPECT_EQ(render("{{ 1 }}\nx"), "1\nx");
}

TEST(JinjaWhiteSpace, OneFinalLineEndOfTheSourceGoes) {
  EXPECT_EQ(render("a\n"), "a");
  EXPECT_EQ(render("a\n\n"), "a\n");
  EXPECT_EQ(render("a\r\nb\rc\r\n"), "a\nb\nc");
  EXPECT_EQ(render("\n"), "");
  EXPECT_EQ(render(""), "");
}

TEST(JinjaWhiteSpace, MinusStripsEverySpace) {
  EXPECT_EQ(render("a \t\n\xC2\xA0 {{- 1 -}} \n\n\xE3\x80\x80 b"), "a1b");
  EXPECT_EQ(render("a{%- raw -%}  {{ x }}  {%- endraw -%}  b"), "a{{ x }}b");
  EXPECT_EQ(render("a\n  {% raw %}\n b \n  {% endraw %}\nc"), "a\n\n b \nc");
}

// Limits.

TEST(JinjaLimits, NestedLoopsEnd) {
  const auto start = std::chrono::steady_clock::now();
  const std::string message =
      error_of("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}");
  EXPECT_TRUE(contains(message, "more than 1000000 steps")) << message;
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(JinjaLimits, LoopThatFeedsItselfEnds) {
  EXPECT_TRUE(contains(error_of("{% set ns = namespace(l=[1]) %}{% for i in range(100000) %}"
                                "{% set ns.l = ns.l + ns.l %}{% endfor %}"),
                       "steps"));
  EXPECT_TRUE(contains(error_of("{% set ns = namespace(s='x') %}{% for i in range(1000) %}"
                                "{% set ns.s = ns.s ~ ns.s %}{% endfor %}"),
                       "steps"));
  EXPECT_TRUE(
      contains(error_of("{% macro m(n) %}{% if n < 9 %}{% for i in range(9) %}{{ m(n + 1) }}{% endfor %}{% endif %}"
                        "{% endmacro %}{{ m(0) }}"),
               "steps"));
}

TEST(JinjaLimits, RecursionEnds) {
  EXPECT_TRUE(contains(error_of("{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}"), "more than 100 calls"));
  EXPECT_TRUE(contains(error_of("{% macro a() %}{% call b() %}{{ a() }}{% endcall %}{% endmacro %}"
                                "{% macro b() %}{{ caller() }}{% endmacro %}{{ a() }}"),
                       "inside each other"));
  EXPECT_TRUE(contains(error_of("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}"), "more than 100 calls"));
  EXPECT_EQ(render("{% macro m(n) %}{% if n > 0 %}{{ m(n - 1) }}{% else %}end{% endif %}{% endmacro %}{{ m(90) }}"),
            "end");
}

TEST(JinjaLimits, OutputIsBounded) {
  Limits limits;
  limits.output_bytes = 1000;
  EXPECT_EQ(render("{{ 'x' * 1000 }}", {}, limits).size(), 1000u);
  EXPECT_TRUE(contains(error_of("{{ 'x' * 1001 }}", {}, limits), "longer than 1000 bytes"));
  EXPECT_TRUE(contains(error_of("{% for i in range(600) %}ab{% endfor %}", {}, limits), "longer than 1000 bytes"));
  EXPECT_TRUE(
      contains(error_of("{% for i in range(1000) %}{{ 'x' * 10000 }}{% endfor %}"), "longer than 8388608 bytes"));
}

TEST(JinjaLimits, LargeProductsAreRefusedBeforeTheyAreMade) {
  for (const char* source :
       {"{{ 'abc' * 10000000000 }}", "{{ [1, 2] * 10000000000 }}", "{{ range(99999999999) }}",
        "{{ '%9999s' % 'a' * 1000000 }}", "{{ 'a'.center(99999999999) }}", "{{ 'a'|indent(9999999999) }}",
        "{{ 'a'.ljust(9999999999, 'xyz') }}", "{{ 'a'.zfill(9999999999) }}"}) {
    const std::string message = error_of(source);
    EXPECT_FALSE(message.starts_with("no error")) << source;
  }
  EXPECT_TRUE(contains(error_of("{{ '%99999s' % 'a' }}"), "above 10000"));
}

TEST(JinjaLimits, DeepSourceIsRefused) {
  const auto repeated = [](const std::string& part, int n) {
    std::string out;
    for (int i = 0; i < n; ++i) out += part;
    return out;
  };
  EXPECT_TRUE(
      contains(error_of("{{ " + repeated("(", 10000) + "1" + repeated(")", 10000) + " }}"), "inside each other"));
  EXPECT_TRUE(contains(error_of("{{ " + repeated("[", 5000) + repeated("]", 5000) + " }}"), "inside each other"));
  EXPECT_TRUE(contains(error_of("{{ " + repeated("not ", 5000) + "1 }}"), "inside each other"));
  EXPECT_TRUE(contains(error_of("{{ " + repeated("- ", 5000) + "1 }}"), "inside each other"));
  EXPECT_TRUE(contains(error_of("{{ a" + repeated(".b", 5000) + " }}"), "in a row"));
  EXPECT_TRUE(contains(error_of("{{ 'a'" + repeated("|upper", 5000) + " }}"), "in a row"));
  EXPECT_TRUE(contains(error_of("{{ 1" + repeated(" if 1 else 1", 5000) + " }}"), "inside each other"));
  EXPECT_TRUE(contains(error_of("{{ 1" + repeated(" if 1", 5000) + " }}"), "in a row"));
  EXPECT_TRUE(contains(error_of(repeated("{% if 1 %}", 5000)), "inside each other"));
  EXPECT_TRUE(contains(error_of("{% for " + repeated("(", 5000) + "a" + repeated(")", 5000) + " in b %}"),
                       "nested too deeply"));
  EXPECT_TRUE(contains(error_of("{{ ['x']|map(" + repeated("'map', ", 3000) + "'upper') }}"), "inside each other"));
  EXPECT_TRUE(contains(error_of(std::string(kMaxSourceBytes + 1, 'x')), "at most"));
  // Long chains of one operator are no nesting.
  EXPECT_EQ(render("{{ 1" + repeated(" + 1", 5000) + " }}"), "5001");
  EXPECT_EQ(render("{{ 0" + repeated(" or 0", 5000) + " }}"), "0");
  EXPECT_EQ(render("{% if 0 %}" + repeated("{% elif 0 %}", 3000) + "{% else %}x{% endif %}"), "x");
}

TEST(JinjaLimits, ContainersInCirclesAreRefusedAndFreed) {
  EXPECT_TRUE(contains(error_of("{% set l = [] %}{% do l.append(l) %}{{ l }}"), "nested deeper"));
  EXPECT_TRUE(contains(error_of("{% set l = [] %}{% do l.append(l) %}{{ l|tojson }}"), "nested deeper"));
  EXPECT_TRUE(contains(error_of("{% set a = [] %}{% do a.append(a) %}{% set b = [] %}{% do b.append(b) %}{{ a == b }}"),
                       "nested deeper"));
  EXPECT_TRUE(contains(error_of("{% set d = {} %}{% do d.update(x=d) %}{{ d }}"), "nested deeper"));
  // Sharing doubles the text at each level: 2^100 elements.
  EXPECT_TRUE(contains(error_of("{% set ns = namespace(l=[1]) %}{% for i in range(100) %}"
                                "{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}"),
                       "steps"));
}

TEST(JinjaLimits, DeepDataIsRefused) {
  Json deep = 1;
  for (int i = 0; i < 200; ++i) deep = Json::array({deep});
  EXPECT_TRUE(contains(error_of("x", {{"deep", deep}}), "nested deeper"));
}

TEST(JinjaLimits, SearchInRepetitiveTextIsLinear) {
  const auto start = std::chrono::steady_clock::now();
  const Json context = {{"a", std::string(2 << 20, 'a')}, {"b", std::string(1 << 20, 'a') + "b"}};
  EXPECT_EQ(
      render("{{ b in a }}{{ a.find(b) }}{{ a.rfind('b' ~ a[:1000000]) }}{{ a.count(b) }}{{ a|replace(b, '')|length }}",
             context),
      "False-1-102097152");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST(JinjaLimits, LongConversationsFit) {
  Json messages = Json::array();
  for (int i = 0; i < 2000; ++i) messages.push_back({{"role", "user"}, {"content", std::string(2000, 'y')}});
  EXPECT_EQ(render("{% for m in messages %}{{ '<|' + m.role + '|>' + m.content | trim + '<|end|>' }}{% endfor %}",
                   {{"messages", messages}})
                .size(),
            2000u * (2000 + 8 + 7));
}

TEST(JinjaThreads, OneTemplateManyThreads) {
  const Template shared("{% for x in xs %}{{ 'a' + x ~ loop.index }}{% endfor %}");
  std::vector<std::string> results(4);
  std::vector<std::thread> threads;
  for (std::string& result : results) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        Runtime runtime(Limits{}, {});
        result = shared.render(runtime, {{"xs", from_json(runtime, Json::array({"p", "q"}), true)}}).view();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& result : results) EXPECT_EQ(result, "ap1aq2");
}

// Where text comes from: data in angle brackets.

TEST(JinjaOrigin, EveryOperationKeepsTheMark) {
  const Json context = {{"m", " Ab "}, {"k", {{"x", "v"}}}, {"l", {"p", "q"}}};
  const std::pair<const char*, const char*> cases[] = {
      {"[{{ m }}]", "[< Ab >]"},
      {"{{ '(' + m + ')' }}", "(< Ab >)"},
      {"{{ '(' ~ m ~ 1 ~ ')' }}", "(< Ab >1)"},
      {"{{ m|trim }}{{ m.strip() }}{{ m|upper }}{{ m.lower() }}{{ m|title }}", "<AbAb AB  ab  Ab >"},
      {"{{ (m ~ 'cd')|trim|upper }}", "<AB >CD"},
      {"{{ m[1] }}{{ m[1:3] }}{{ m[::-1] }}{{ m|first }}", "<AAb bA  >"},
      {"{{ ('<' ~ m ~ '>')[1:-1] }}", "< Ab >"},
      {"{{ m * 2 }}", "< Ab  Ab >"},
      {"{{ m|replace('b', 'X') }}", "< A>X< >"},
      {"{{ 'aXb'|replace('X', m) }}", "a< Ab >b"},
      {"{{ l|join('-') }}", "<p>-<q>"},
      {"{{ '-'.join(l) }}", "<p>-<q>"},
      {"{{ m.split('A')|join('|') }}", "< >|<b >"},
      {"{{ '%s:%s' % (m, 'z') }}", "< Ab >:z"},
      {"{{ '{}:{}'.format(m, 'z') }}", "< Ab >:z"},
      {"{{ m|indent(2, true) }}", "  < Ab >"},
      {"{{ m|string }}{{ m|safe }}{{ m|default('x') }}{{ m|e }}", "< Ab  Ab  Ab  Ab >"},
      {"{% for c in m %}{{ c }}{% endfor %}", "< Ab >"},
      {"{% for k, v in k.items() %}{{ k }}={{ v }}{% endfor %}", "<x>=<v>"},
      {"{{ k|tojson }}|{{ {'a': m}|tojson }}|{{ {'a': 'b'}|tojson }}",
       "<{\"x\": \"v\"}>|<{\"a\": \" Ab \"}>|{\"a\": \"b\"}"},
      {"{{ k }}{{ [1, 'a'] }}", "<{'x': 'v'}>[1, 'a']"},
      {"{% set s %}({{ m }}){% endset %}{{ s }}", "(< Ab >)"},
      {"{% macro q(t) %}({{ t }}){% endmacro %}{{ q(m) }}", "(< Ab >)"},
      {"{% filter upper %}x{{ m }}{% endfilter %}", "X< AB >"},
      {"{% set ns = namespace(t='') %}{% for x in l %}{% set ns.t = ns.t + x %}{% endfor %}{{ ns.t }}", "<pq>"},
      {"{{ m|truncate(3, true, '..', 0) }}", "< >.."},
      {"{{ m|center(6) }}", " < Ab > "},
      {"{{ 'yes' if m == ' Ab ' else m }}", "yes"},
      {"{{ ['z', m]|sort|join }}", "< Ab >z"},
      {"{{ 'A' in m }}{{ m|length }}", "True4"},
  };
  for (const auto& [source, expected] : cases) EXPECT_EQ(marked(render_text(source, context)), expected) << source;
}

TEST(JinjaOrigin, TextInvariants) {
  Text text("ab", false);
  text.append("cd", true);
  text.append("", false);
  text.append("ef", true);
  text.append("gh", false);
  EXPECT_EQ(marked(text), "ab<cdef>gh");
  EXPECT_EQ(marked(text.slice(1, 4)), "b<cd>");
  EXPECT_EQ(marked(text.slice(2, 6)), "<cdef>");
  EXPECT_EQ(marked(text.slice(6, 8)), "gh");
  EXPECT_EQ(marked(text.slice(3, 3)), "");
  EXPECT_FALSE(text.is_data_at(1));
  EXPECT_TRUE(text.is_data_at(2));
  EXPECT_TRUE(text.is_data_at(5));
  EXPECT_FALSE(text.is_data_at(6));
  Text joined = text;
  joined.append(text, 4, 8);
  EXPECT_EQ(marked(joined), "ab<cdef>gh<ef>gh");
  EXPECT_FALSE(Text("", true).has_data());
}

TEST(JinjaErrors, BytesThatAreNoUtf8Survive) {
  EXPECT_EQ(render("a\xFF{{ '\xC3' ~ 'b' }}"),
            "a\xFF\xC3"
            "b");
  EXPECT_EQ(render("{{ 'x\xFFy'|upper }}{{ 'x\xFFy'[1] }}{{ 'x\xFFy'|length }}"),
            "X\xFFY\xFF"
            "3");
}

}  // namespace
}  // namespace mneme::jinja
