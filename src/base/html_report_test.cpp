#include "base/html_report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace mneme {
namespace {

size_t count(const std::string& text, std::string_view part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

TEST(AxisTicks, AreRoundInsideAndAboutAsManyAsWanted) {
  EXPECT_EQ(axis_ticks(0, 10, 5), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  for (const auto& [low, high] : {std::pair{-3.7, 12.2}, {0.0001, 0.00013}, {1e6, 9.9e6}, {-5.0, -4.99}}) {
    const std::vector<double> ticks = axis_ticks(low, high, 6);
    EXPECT_GE(ticks.size(), 2u);
    EXPECT_LE(ticks.size(), 8u);
    EXPECT_TRUE(std::is_sorted(ticks.begin(), ticks.end()));
    const double slack = (high - low) * 1e-6;
    EXPECT_GE(ticks.front(), low - slack);
    EXPECT_LE(ticks.back(), high + slack);
  }
}

TEST(LineChart, DrawsEverySeriesAndLeavesOutWhatIsNotFinite) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  LineChart chart{"a & b", "x", "y", false, false, {{"one", {0, 1, 2}, {1, nan, 3}}, {"two", {0, 2}, {5, 4}}}};
  const std::string svg = to_svg(chart);
  EXPECT_EQ(count(svg, "<polyline"), 2u);
  EXPECT_EQ(count(svg, "<circle"), 4u);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_NE(svg.find("a &amp; b"), std::string::npos);
  EXPECT_NE(svg.find(">one<"), std::string::npos);
}

TEST(LineChart, LongSeriesAreThinnedToMeans) {
  ChartSeries series{"long", {}, {}};
  for (int i = 0; i < 100000; ++i) {
    series.x.push_back(i);
    series.y.push_back(i % 2 == 0 ? 1 : 3);  // mean 2 everywhere
  }
  const std::string svg = to_svg({"t", "x", "y", false, false, {series}});
  EXPECT_LT(svg.size(), 12000u);
  const size_t at = svg.find("points=\"") + 8;
  const std::string points = svg.substr(at, svg.find('"', at) - at);
  std::vector<std::string> heights;
  for (size_t i = points.find(','); i != std::string::npos; i = points.find(',', i + 1)) {
    heights.push_back(points.substr(i + 1, points.find(' ', i) - i - 1));
  }
  EXPECT_EQ(heights.size(), 400u);
  EXPECT_EQ(static_cast<size_t>(std::count(heights.begin(), heights.end(), heights[0])), heights.size());
}

TEST(LineChart, LogAxisDropsWhatHasNoLogarithm) {
  const std::string svg = to_svg({"t", "x", "y", true, false, {{"s", {0, 1, 2, 3}, {0, 1, 100, -4}}}});
  EXPECT_EQ(count(svg, "<circle"), 2u);
  EXPECT_NE(svg.find(">100<"), std::string::npos);
}

TEST(LineChart, NothingToDrawIsSaid) {
  EXPECT_NE(to_svg({"t", "x", "y", false, false, {}}).find("no values"), std::string::npos);
  EXPECT_NE(to_svg({"t", "x", "y", false, false, {{"s", {0}, {std::nan("")}}}}).find("no values"), std::string::npos);
  EXPECT_EQ(to_svg({"t", "x", "y", false, false, {{"s", {5}, {7}}}}).find("nan"), std::string::npos);
}

TEST(HtmlReport, EscapesEverything) {
  HtmlReport report("<t>");
  report.heading("<h>");
  report.paragraph("a < b & \"c\"");
  report.preformatted("<script>alert(1)</script>");
  report.facts(std::vector<std::pair<std::string, std::string>>{{"<k>", "<v>"}});
  report.table(std::vector<std::string>{"<c>"}, std::vector<std::vector<std::string>>{{"12.5 %"}, {"<x>"}});
  const std::string page = report.page();
  for (const char* bad : {"<script", "<t>", "<h>", "<k>", "<v>", "<c>", "<x>"})
    EXPECT_EQ(page.find(bad), std::string::npos) << bad;
  EXPECT_NE(page.find("<td class=\"number\">12.5 %</td>"), std::string::npos);
  EXPECT_NE(page.find("<td>&lt;x&gt;</td>"), std::string::npos);
}

}  // namespace
}  // namespace mneme
