// Runs the table expressions.txt: templates, variables and the text they must give.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/test_data.h"
#include "model/chat/jinja/print.h"
#include "model/chat/jinja/template.h"

namespace mneme::jinja {
namespace {

struct Case {
  size_t line;
  std::string source, expected;
  bool is_error = false;
};

struct Table {
  std::string context;
  std::vector<Case> cases;
};

/// The rest of a line after its marker and one blank.
std::string after_marker(const std::string& line) {
  return line.size() > 2 ? line.substr(2) : std::string();
}

Table read_table(const std::string& path) {
  std::ifstream file(path);
  Table table;
  std::string line;
  bool inside = false;
  bool has_answer = false;
  for (size_t number = 1; std::getline(file, line); ++number) {
    if (line.starts_with("context ")) {
      table.context += line.substr(8);
    } else if (line.empty()) {
      inside = false;
    } else if (!inside && line.starts_with("# ")) {
      continue;
    } else if (line[0] == '=' || line[0] == '!') {
      Case& current = table.cases.back();
      if (has_answer) current.expected += '\n';
      current.expected += after_marker(line);
      current.is_error = line[0] == '!';
      has_answer = true;
    } else {
      if (!inside) table.cases.push_back({number, {}, {}});
      if (inside) table.cases.back().source += '\n';
      table.cases.back().source += line;
      inside = true;
      has_answer = false;
    }
  }
  return table;
}

std::tm fixed_time() {
  std::tm time{};
  time.tm_year = 124;
  time.tm_mon = 2;
  time.tm_mday = 5;
  time.tm_hour = 14;
  time.tm_min = 7;
  time.tm_sec = 9;
  time.tm_wday = 2;
  time.tm_yday = 64;
  return time;
}

std::string render(const std::string& source, const Json& context) {
  Runtime runtime(Limits{}, fixed_time);
  Template::Variables variables;
  for (const auto& [name, value] : context.items()) variables.emplace_back(name, from_json(runtime, value, true));
  return std::string(Template(source).render(runtime, variables).view());
}

TEST(JinjaExpressions, TableGivesTheExpectedTexts) {
  const Table table = read_table(source_path("src/model/chat/jinja/expressions.txt"));
  ASSERT_GE(table.cases.size(), 150u);
  const Json context = parse_json(table.context, "context");
  for (const Case& each : table.cases) {
    SCOPED_TRACE("expressions.txt:" + std::to_string(each.line) + ": " + each.source);
    if (!each.is_error) {
      std::string found;
      EXPECT_NO_THROW(found = render(each.source, context));
      EXPECT_EQ(found, each.expected);
      continue;
    }
    try {
      ADD_FAILURE() << "no error but: " << render(each.source, context);
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(each.expected), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find(", at line "), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace mneme::jinja
