#include "cli/quant_study_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/byte_size.h"
#include "base/html_report.h"

namespace mneme::cli {
namespace {

const std::vector<std::string> kHeader = {"bits asked", "format",   "calibration", "true bits", "bytes",
                                          "saved",      "pass@1",   "change",      "p",         "odds ratio",
                                          "adjusted p", "p, tasks", "text ppl",    "code ppl",  "tokens/s"};

std::string odds(const PairedOutcomes& pairs) {
  const std::optional<double> ratio = pairs.odds_ratio();
  return ratio ? fmt::format("{:.2f}", *ratio) : "-";
}

double rate(const StudyRow& row) {
  return row.completions.seconds > 0 ? static_cast<double>(row.completions.n_tokens) / row.completions.seconds : 0;
}

std::vector<std::string> cells(const StudyRow& row, const ModelStudy& study) {
  const bool original = row.format.empty();
  const double change = row.completions.pass_at_1() - study.original.completions.pass_at_1();
  const auto only_variants = [&](std::string text) { return original ? std::string() : std::move(text); };
  return {row.width,
          original ? "original" : row.format,
          row.calibration + (row.tuned ? " +tuned" : ""),
          fmt::format("{:.2f}", row.bits),
          format_byte_size(row.bytes),
          fmt::format("{:.1f} %", 100 * row.saved),
          fmt::format("{:.1f} %", 100 * row.completions.pass_at_1()),
          only_variants(fmt::format("{:+.1f}", 100 * change)),
          only_variants(fmt::format("{:.2g}", row.p)),
          only_variants(odds(row.against_original)),
          only_variants(fmt::format("{:.2g}", row.adjusted_p)),
          only_variants(fmt::format("{:.2g}", row.task_p)),
          fmt::format("{:.2f}", row.text_perplexity),
          fmt::format("{:.3f}", row.code_perplexity),
          fmt::format("{:.0f}", rate(row))};
}

std::vector<std::vector<std::string>> table(const ModelStudy& study) {
  std::vector<std::vector<std::string>> out = {cells(study.original, study)};
  for (const StudyRow& row : study.rows) out.push_back(cells(row, study));
  return out;
}

const std::vector<std::string> kPairHeader = {"bits asked", "first",      "second",     "difference",
                                              "p",          "odds ratio", "adjusted p", "p, tasks"};

std::vector<std::vector<std::string>> pair_table(const ModelStudy& study) {
  std::vector<std::vector<std::string>> out;
  for (const CalibrationPair& pair : study.pairs) {
    out.push_back({pair.width + (pair.tuned ? " +tuned" : ""), pair.first, pair.second,
                   fmt::format("{:+.1f}", 100 * pair.difference), fmt::format("{:.2g}", pair.p), odds(pair.pairs),
                   fmt::format("{:.2g}", pair.adjusted_p), fmt::format("{:.2g}", pair.task_p)});
  }
  return out;
}

/// Columns as wide as their widest cell.
std::string aligned(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (size_t c = 0; c < header.size(); ++c) {
    size_t width = header[c].size();
    for (const auto& row : rows) width = std::max(width, row[c].size());
    widths.push_back(width);
  }
  std::string out;
  const auto line = [&](const std::vector<std::string>& row) {
    for (size_t c = 0; c < row.size(); ++c) {
      // Words left, numbers right.
      out += c < 3 ? fmt::format("{:<{}}  ", row[c], widths[c]) : fmt::format("{:>{}}  ", row[c], widths[c]);
    }
    while (!out.empty() && out.back() == ' ') out.pop_back();
    out += '\n';
  };
  line(header);
  for (const auto& row : rows) line(row);
  return out;
}

std::string sets_text(const ModelStudy& study) {
  std::string out;
  for (const CalibrationSet& set : study.sets) {
    out += fmt::format("{}{} of seed {}: {} pieces, {} left out for {} tokens in a row that a task has",
                       out.empty() ? "" : "; ", calibration_name(set.kind), set.seed, set.n_pieces, set.n_dropped,
                       kOverlapTokens);
  }
  return out;
}

Json row_json(const StudyRow& row) {
  Json out = {{"bits_per_weight", row.bits},
              {"tensor_bytes", row.bytes},
              {"saved", row.saved},
              {"pass_at_1", row.completions.pass_at_1()},
              {"text_perplexity", row.text_perplexity},
              {"code_perplexity", row.code_perplexity},
              {"tokens_per_second", rate(row)}};
  for (size_t i = 0; i < row.completions.n_by_verdict.size(); ++i) {
    out["completions"][std::string(verdict_name(static_cast<train::abacus::Verdict>(i)))] =
        row.completions.n_by_verdict[i];
  }
  if (row.format.empty()) return out;
  out["width"] = row.width;
  out["format"] = row.format;
  out["calibration"] = row.calibration;
  out["tuned"] = row.tuned;
  out["only_original_passed"] = row.against_original.only_first;
  out["only_this_passed"] = row.against_original.only_second;
  out["p"] = row.p;
  out["adjusted_p"] = row.adjusted_p;
  out["task_p"] = row.task_p;
  if (const auto ratio = row.against_original.odds_ratio()) out["odds_ratio"] = *ratio;
  return out;
}

/// pass@1 over true bits, a line a calibration; the original is the last point of each.
LineChart chart_of(const ModelStudy& study) {
  LineChart chart{"pass@1 against bits", "true bits a weight", "pass@1, %", false, true, {}};
  std::map<std::string, std::vector<std::pair<double, double>>> lines;
  for (const StudyRow& row : study.rows) {
    lines[row.calibration + (row.tuned ? ", tuned" : "")].emplace_back(row.bits, 100 * row.completions.pass_at_1());
  }
  for (auto& [name, points] : lines) {
    points.emplace_back(study.original.bits, 100 * study.original.completions.pass_at_1());
    std::sort(points.begin(), points.end());
    ChartSeries series{name, {}, {}};
    for (const auto& [x, y] : points) {
      series.x.push_back(x);
      series.y.push_back(y);
    }
    chart.series.push_back(std::move(series));
  }
  return chart;
}

}  // namespace

std::string quant_study_text(const ModelStudy& study) {
  std::string out =
      fmt::format("{}: {} parameters\n{}\n", study.model, study.parameters, aligned(kHeader, table(study)));
  if (!study.pairs.empty()) out += aligned(kPairHeader, pair_table(study)) + "\n";
  out += "calibration: " + sets_text(study) + "\n";
  for (const StudyVerdict& verdict : study.verdicts) {
    out += fmt::format("{:<6} {}\n       {}\n", verdict.holds ? "holds" : "FAILS", verdict.text, verdict.how);
  }
  return out;
}

Json quant_study_json(std::span<const ModelStudy> studies, const QuantStudyOptions& options) {
  Json models = Json::array();
  for (const ModelStudy& study : studies) {
    Json rows = Json::array(), pairs = Json::array(), sets = Json::array(), verdicts = Json::array();
    for (const StudyRow& row : study.rows) rows.push_back(row_json(row));
    for (const CalibrationPair& pair : study.pairs) {
      pairs.push_back({{"width", pair.width},
                       {"tuned", pair.tuned},
                       {"first", pair.first},
                       {"second", pair.second},
                       {"difference", pair.difference},
                       {"p", pair.p},
                       {"adjusted_p", pair.adjusted_p},
                       {"task_p", pair.task_p}});
    }
    for (const CalibrationSet& set : study.sets) {
      sets.push_back({{"name", calibration_name(set.kind)},
                      {"seed", set.seed},
                      {"tokens", options.calibration_tokens},
                      {"pieces", set.n_pieces},
                      {"left_out", set.n_dropped}});
    }
    for (const StudyVerdict& verdict : study.verdicts) {
      verdicts.push_back({{"finding", verdict.text}, {"holds", verdict.holds}, {"how", verdict.how}});
    }
    models.push_back({{"model", study.model},
                      {"parameters", study.parameters},
                      {"original", row_json(study.original)},
                      {"rows", rows},
                      {"calibration_pairs", pairs},
                      {"calibration_sets", sets},
                      {"findings", verdicts}});
  }
  return {{"tasks", options.n_tasks},
          {"completions_per_task", options.completions.per_task},
          {"temperature", options.completions.temperature},
          {"seed", options.seed},
          {"tune_steps", options.tune_steps},
          {"models", models}};
}

std::string quant_study_page(std::span<const ModelStudy> studies, const QuantStudyOptions& options) {
  HtmlReport report("Quantised models of code");
  report.paragraph(fmt::format(
      "{} held-out tasks, {} completions of each at temperature {}, run in the interpreter of Abacus. p: exact McNemar "
      "test of completions against the original's for the same draws; odds ratio: completions that only the original "
      "passes over those that only this one does; adjusted p: Benjamini-Hochberg among the rows of a model; p, tasks: "
      "permutation test over tasks.",
      options.n_tasks, options.completions.per_task, options.completions.temperature));
  for (const ModelStudy& study : studies) {
    report.heading(fmt::format("{}, {} parameters", study.model, study.parameters));
    report.table(kHeader, table(study));
    report.chart(chart_of(study));
    if (!study.pairs.empty()) {
      report.paragraph("Calibrations against each other, points of pass@1:");
      report.table(kPairHeader, pair_table(study));
    }
    report.paragraph("Calibration: " + sets_text(study) + ".");
    std::vector<std::vector<std::string>> findings;
    for (const StudyVerdict& verdict : study.verdicts) {
      findings.push_back({verdict.text, verdict.holds ? "holds" : "fails", verdict.how});
    }
    if (!findings.empty()) {
      const std::vector<std::string> header = {"the paper found", "here", "measured"};
      report.table(header, findings);
    }
  }
  return report.page();
}

}  // namespace mneme::cli
