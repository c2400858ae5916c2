#include "base/html_report.h"

#include <fmt/format.h>

#include <cstdlib>

namespace mneme {
namespace {

constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 920px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 1.8em; }
table { border-collapse: collapse; margin: .8em 0; } th, td { padding: .2em .9em .2em 0; text-align: left; }
th { border-bottom: 1px solid #8888; font-weight: 600; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
svg { width: 100%; margin: .6em 0; } svg text { font-size: 12px; fill: currentColor; } svg .title { font-weight: 600; }
svg .grid { stroke: #8884; } pre { background: #8881; padding: .8em; overflow-x: auto; white-space: pre-wrap; }
)";

bool is_number(const std::string& text) {
  if (text.empty()) return false;
  char* end = nullptr;
  std::strtod(text.c_str(), &end);
  const std::string_view rest = end;
  return end != text.c_str() && (rest.empty() || rest == " %" || rest == "%");
}

}  // namespace

HtmlReport::HtmlReport(std::string_view title) : title_(html_escaped(title)) {}

void HtmlReport::heading(std::string_view text) {
  body_ += fmt::format("<h2>{}</h2>\n", html_escaped(text));
}

void HtmlReport::paragraph(std::string_view text) {
  body_ += fmt::format("<p>{}</p>\n", html_escaped(text));
}

void HtmlReport::preformatted(std::string_view text) {
  body_ += fmt::format("<pre>{}</pre>\n", html_escaped(text));
}

void HtmlReport::facts(std::span<const std::pair<std::string, std::string>> rows) {
  body_ += "<table>\n";
  for (const auto& [name, value] : rows) {
    body_ += fmt::format("<tr><td>{}</td><td>{}</td></tr>\n", html_escaped(name), html_escaped(value));
  }
  body_ += "</table>\n";
}

void HtmlReport::table(std::span<const std::string> header, std::span<const std::vector<std::string>> rows) {
  body_ += "<table>\n<tr>";
  for (const std::string& cell : header) body_ += fmt::format("<th>{}</th>", html_escaped(cell));
  body_ += "</tr>\n";
  for (const auto& row : rows) {
    body_ += "<tr>";
    for (const std::string& cell : row) {
      body_ += fmt::format("<td{}>{}</td>", is_number(cell) ? R"( class="number")" : "", html_escaped(cell));
    }
    body_ += "</tr>\n";
  }
  body_ += "</table>\n";
}

void HtmlReport::chart(const LineChart& chart) {
  body_ += to_svg(chart) + "\n";
}

std::string HtmlReport::page() const {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
      "content=\"width=device-width\">\n<title>{0}</title>\n<style>{1}</style>\n<h1>{0}</h1>\n{2}</html>\n",
      title_, kStyle, body_);
}

}  // namespace mneme
