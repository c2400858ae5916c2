#include "base/line_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace mneme {
namespace {

constexpr double kWidth = 860, kHeight = 320, kLeft = 70, kRight = 16, kTop = 34, kBottom = 46;
constexpr size_t kColumns = 400;
constexpr const char* kColours[] = {"#2563eb", "#dc2626", "#059669", "#d97706",
                                    "#7c3aed", "#0891b2", "#be185d", "#4d7c0f"};

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();

  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return low > high; }
  /// Not a single point, so that it can be divided.
  void widen() {
    if (high > low) return;
    const double by = low == 0 ? 1 : std::abs(low) / 10;
    low -= by;
    high += by;
  }
};

/// What can be drawn of a series, on the axis' own scale, thinned to means over kColumns columns of x.
ChartSeries drawable(const ChartSeries& series, bool log_y) {
  ChartSeries points{series.name, {}, {}};
  for (size_t i = 0; i < std::min(series.x.size(), series.y.size()); ++i) {
    const double y = log_y ? std::log10(series.y[i]) : series.y[i];
    if (!std::isfinite(series.x[i]) || !std::isfinite(y)) continue;
    points.x.push_back(series.x[i]);
    points.y.push_back(y);
  }
  if (points.x.size() <= kColumns) return points;
  ChartSeries means{series.name, {}, {}};
  for (size_t c = 0; c < kColumns; ++c) {
    const size_t begin = points.x.size() * c / kColumns, end = points.x.size() * (c + 1) / kColumns;
    double x = 0, y = 0;
    for (size_t i = begin; i < end; ++i) {
      x += points.x[i];
      y += points.y[i];
    }
    means.x.push_back(x / static_cast<double>(end - begin));
    means.y.push_back(y / static_cast<double>(end - begin));
  }
  return means;
}

std::string tick_label(double value, bool log_y) {
  if (log_y) value = std::pow(10, value);
  const double size = std::abs(value);
  if (size >= 1e9) return fmt::format("{:.4g}G", value / 1e9);
  if (size >= 1e6) return fmt::format("{:.4g}M", value / 1e6);
  if (size >= 1e4) return fmt::format("{:.4g}k", value / 1e3);
  return fmt::format("{:.4g}", value);
}

/// Logarithms of 1, 2 and 5 times powers of ten in [low, high]; even divisions where there are not enough of them.
std::vector<double> log_ticks(double low, double high) {
  std::vector<double> ticks;
  for (int power = static_cast<int>(std::floor(low)); power <= high; ++power) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double tick = power + std::log10(factor);
      if (tick >= low && tick <= high) ticks.push_back(tick);
    }
  }
  return ticks.size() < 2 ? axis_ticks(low, high, 4) : ticks;
}

/// Maps values to places on the page.
struct Frame {
  Range x, y;
  double at_x(double v) const { return kLeft + (v - x.low) / (x.high - x.low) * (kWidth - kLeft - kRight); }
  double at_y(double v) const {
    return kHeight - kBottom - (v - y.low) / (y.high - y.low) * (kHeight - kTop - kBottom);
  }
};

void draw_axes(const LineChart& chart, const Frame& frame, std::string& svg) {
  const double low = frame.y.low, high = frame.y.high;
  for (const double v : chart.log_y ? log_ticks(low, high) : axis_ticks(low, high, 6)) {
    const double at = frame.at_y(v);
    svg +=
        fmt::format(R"(<line x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}" class="grid"/>)", kLeft, kWidth - kRight, at, at);
    svg += fmt::format(R"(<text x="{}" y="{:.1f}" text-anchor="end">{}</text>)", kLeft - 6, at + 4,
                       tick_label(v, chart.log_y));
  }
  for (const double v : axis_ticks(frame.x.low, frame.x.high, 8)) {
    svg += fmt::format(R"(<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>)", frame.at_x(v),
                       kHeight - kBottom + 18, tick_label(v, false));
  }
  svg += fmt::format(R"(<text x="{}" y="{}" text-anchor="middle">{}</text>)", kWidth / 2, kHeight - 8,
                     html_escaped(chart.x_label));
  svg += fmt::format(R"--(<text x="14" y="{0}" text-anchor="middle" transform="rotate(-90 14 {0})">{1}</text>)--",
                     kHeight / 2, html_escaped(chart.y_label));
}

void draw_series(const ChartSeries& series, const Frame& frame, const char* colour, std::string& svg) {
  std::string points;
  for (size_t i = 0; i < series.x.size(); ++i) {
    points += fmt::format("{:.1f},{:.1f} ", frame.at_x(series.x[i]), frame.at_y(series.y[i]));
  }
  svg += fmt::format(R"(<polyline points="{}" fill="none" stroke="{}" stroke-width="1.6"/>)", points, colour);
  if (series.x.size() > 40) return;
  for (size_t i = 0; i < series.x.size(); ++i) {
    svg += fmt::format(R"(<circle cx="{:.1f}" cy="{:.1f}" r="2.5" fill="{}"/>)", frame.at_x(series.x[i]),
                       frame.at_y(series.y[i]), colour);
  }
}

}  // namespace

std::vector<double> axis_ticks(double low, double high, int wanted) {
  const double rough = (high - low) / std::max(wanted, 1);
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = power;
  for (const double factor : {1.0, 2.0, 5.0, 10.0}) {
    step = factor * power;
    if (step >= rough) break;
  }
  std::vector<double> ticks;
  const double slack = step * 1e-9;
  for (double i = std::ceil((low - slack) / step); i * step <= high + slack; ++i) ticks.push_back(i * step + 0.0);
  return ticks;
}

std::string html_escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

std::string to_svg(const LineChart& chart) {
  std::string svg = fmt::format(R"(<svg viewBox="0 0 {} {}" role="img" aria-label="{}">)", kWidth, kHeight,
                                html_escaped(chart.title));
  svg += fmt::format(R"(<text x="{}" y="18" class="title">{}</text>)", kLeft, html_escaped(chart.title));
  Frame frame;
  std::vector<ChartSeries> drawn;
  for (const ChartSeries& series : chart.series) {
    drawn.push_back(drawable(series, chart.log_y));
    for (const double v : drawn.back().x) frame.x.add(v);
    for (const double v : drawn.back().y) frame.y.add(v);
  }
  if (frame.x.empty()) {
    return svg +
           fmt::format(R"(<text x="{}" y="{}" text-anchor="middle">no values</text></svg>)", kWidth / 2, kHeight / 2);
  }
  if (chart.from_zero && !chart.log_y) frame.y.add(0);
  frame.x.widen();
  frame.y.widen();
  draw_axes(chart, frame, svg);
  double legend = kWidth - kRight;
  for (size_t i = drawn.size(); i-- > 0;) {
    const char* colour = kColours[i % std::size(kColours)];
    draw_series(drawn[i], frame, colour, svg);
    svg += fmt::format(R"(<text x="{:.0f}" y="18" text-anchor="end" style="fill:{}">{}</text>)", legend, colour,
                       html_escaped(drawn[i].name));
    legend -= 7.2 * static_cast<double>(drawn[i].name.size()) + 16;
  }
  return svg + "</svg>";
}

}  // namespace mneme
