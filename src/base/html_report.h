#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/line_chart.h"

namespace mneme {

/// A report for people: one HTML page that needs nothing else, light or dark as the reader's system is. Parts appear in
/// the order of the calls; all text is escaped.
class HtmlReport {
 public:
  explicit HtmlReport(std::string_view title);

  void heading(std::string_view text);
  void paragraph(std::string_view text);
  /// Text in a fixed-width font, line breaks kept.
  void preformatted(std::string_view text);
  /// Names and values side by side.
  void facts(std::span<const std::pair<std::string, std::string>> rows);
  /// Rows of cells, as many as the header has; numbers are aligned right.
  void table(std::span<const std::string> header, std::span<const std::vector<std::string>> rows);
  void chart(const LineChart& chart);

  /// The whole page.
  std::string page() const;

 private:
  std::string title_, body_;
};

}  // namespace mneme
