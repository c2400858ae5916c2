#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "eval/quant_study.h"

namespace mneme {
namespace {

constexpr double kLevel = 0.05, kLeastSaved = 0.65;

class Verdicts {
 public:
  explicit Verdicts(const ModelStudy& study) : study_(study) {}

  std::vector<StudyVerdict> run() {
    drop("8", false, "At 8 bits pass@1 is not significantly lower");
    drop("4", false,
         "At 4 bits pass@1 is not significantly lower, and at least 65 % of the bytes of 16 bits are saved");
    drop("2", true, "At 2 bits pass@1 is significantly lower");
    small_drop();
    for (const char* width : {"8", "4"}) same(width);
    for (const char* width : {"3", "2"}) order(width);
    for (const StudyRow& row : study_.rows) recovery(row);
    return std::move(out_);
  }

 private:
  /// The best row of a width without fine-tuning, as who chose a calibration would; null when there is none.
  const StudyRow* best(std::string_view width) const {
    const StudyRow* found = nullptr;
    for (const StudyRow& row : study_.rows) {
      if (row.width != width || row.tuned) continue;
      if (found == nullptr || row.completions.pass_at_1() > found->completions.pass_at_1()) found = &row;
    }
    return found;
  }

  double change(const StudyRow& row) const {
    return row.completions.pass_at_1() - study_.original.completions.pass_at_1();
  }

  /// For every calibration of the width.
  void drop(std::string_view width, bool expected, const std::string& text) {
    StudyVerdict verdict{text, "", true};
    for (const StudyRow& row : study_.rows) {
      if (row.width != width || row.tuned) continue;
      const bool dropped = change(row) < 0 && row.adjusted_p < kLevel;
      verdict.holds = verdict.holds && dropped == expected && (width != "4" || row.saved >= kLeastSaved);
      verdict.how += fmt::format("{}{} {:+.1f} points, p {:.2g}, {:.0f} % saved", verdict.how.empty() ? "" : "; ",
                                 row.calibration, 100 * change(row), row.adjusted_p, 100 * row.saved);
    }
    if (!verdict.how.empty()) out_.push_back(std::move(verdict));
  }

  void small_drop() {
    const StudyRow *three = best("3"), *two = best("2"), *four = best("4");
    if (three == nullptr || two == nullptr || four == nullptr) return;
    const double at_3 = change(*three), at_2 = change(*two), at_4 = change(*four);
    out_.push_back(
        {"With the best calibration, 3 bits lose less than half of what 2 bits lose",
         fmt::format("{:+.1f} points at 4 bits, {:+.1f} at 3, {:+.1f} at 2", 100 * at_4, 100 * at_3, 100 * at_2),
         at_3 > at_2 / 2});
  }

  const CalibrationPair* pair(std::string_view width, std::string_view a, std::string_view b) const {
    const auto found = std::find_if(study_.pairs.begin(), study_.pairs.end(), [&](const CalibrationPair& p) {
      return p.width == width && !p.tuned && ((p.first == a && p.second == b) || (p.first == b && p.second == a));
    });
    return found == study_.pairs.end() ? nullptr : &*found;
  }

  void same(std::string_view width) {
    const CalibrationPair* found = pair(width, "code", "general");
    if (found == nullptr) return;
    out_.push_back(
        {fmt::format("At {} bits calibration on code instead of general text makes no significant difference", width),
         fmt::format("{:+.1f} points, p {:.2g}", 100 * difference(*found), found->adjusted_p),
         found->adjusted_p >= kLevel});
  }

  /// Of code over the other.
  static double difference(const CalibrationPair& p) { return p.first == "code" ? p.difference : -p.difference; }

  void order(std::string_view width) {
    const CalibrationPair *general = pair(width, "code", "general"), *mixed = pair(width, "code", "mixed");
    if (general == nullptr) return;
    out_.push_back({fmt::format("At {} bits calibration on code is significantly better than on general text", width),
                    fmt::format("{:+.1f} points, p {:.2g}", 100 * difference(*general), general->adjusted_p),
                    difference(*general) > 0 && general->adjusted_p < kLevel});
    if (mixed == nullptr) return;
    const double code_over_mixed = difference(*mixed), mixed_over_general = difference(*general) - code_over_mixed;
    out_.push_back({fmt::format("At {} bits pass@1 is highest after code, then mixed, then general text", width),
                    fmt::format("code over mixed {:+.1f} points, mixed over general {:+.1f}", 100 * code_over_mixed,
                                100 * mixed_over_general),
                    code_over_mixed > 0 && mixed_over_general > 0});
  }

  /// What tuning brings where something was lost.
  void recovery(const StudyRow& tuned) {
    if (!tuned.tuned) return;
    const auto plain = std::find_if(study_.rows.begin(), study_.rows.end(), [&](const StudyRow& row) {
      return !row.tuned && row.width == tuned.width && row.calibration == tuned.calibration;
    });
    if (plain == study_.rows.end() || change(*plain) >= 0 || plain->adjusted_p >= kLevel) return;
    out_.push_back(
        {fmt::format("Fine-tuning after {}, {} recovers a part of the loss", tuned.format, tuned.calibration),
         fmt::format("{:+.1f} points before, {:+.1f} after", 100 * change(*plain), 100 * change(tuned)),
         change(tuned) > change(*plain)});
  }

  const ModelStudy& study_;
  std::vector<StudyVerdict> out_;
};

}  // namespace

std::vector<StudyVerdict> study_verdicts(const ModelStudy& study) {
  return Verdicts(study).run();
}

}  // namespace mneme
