#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mneme {

/// A line of a chart: y[i] over x[i], x ascending. Values that are not finite are left out.
struct ChartSeries {
  std::string name;
  std::vector<double> x, y;
};

struct LineChart {
  std::string title, x_label, y_label;
  bool log_y = false;      ///< Logarithmic axis; values at or below zero are left out.
  bool from_zero = false;  ///< The y axis begins at 0. Ignored with log_y.
  std::vector<ChartSeries> series;
};

/// The chart as one SVG element without references to anything outside. Series with more points than the chart has
/// columns are drawn as the mean of each column. Without a value to draw the chart says so.
std::string to_svg(const LineChart& chart);

/// Round values that divide [low, high] into about `wanted` parts, ascending, all inside. low < high, both finite.
std::vector<double> axis_ticks(double low, double high, int wanted);

/// `text` with &, <, > and quotes as HTML entities.
std::string html_escaped(std::string_view text);

}  // namespace mneme
