#include "train/run_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>

#include "base/atomic_file.h"
#include "base/byte_size.h"
#include "base/error.h"
#include "base/html_report.h"
#include "base/json.h"
#include "base/lines.h"

namespace mneme::train {
namespace {

constexpr uint64_t kMostLogBytes = uint64_t{1} << 30;

/// Lines of the log by kind, each step once.
struct Log {
  Json start = Json::object();  ///< Of the newest start or resume.
  std::vector<Json> steps, evaluations;
  size_t n_starts = 0;
};

double number(const Json& line, const char* name) {
  const auto found = line.find(name);
  return found != line.end() && found->is_number() ? found->get<double>() : std::numeric_limits<double>::quiet_NaN();
}

/// Drops what was logged after `step`: a resumed run trains it again.
void rewind_to(std::vector<Json>& lines, double step) {
  while (!lines.empty() && number(lines.back(), "step") > step) lines.pop_back();
}

Log read_log(const std::string& path) {
  const std::string text = read_text_file(path, kMostLogBytes);
  Log log;
  // What comes after the last line end is a line that a kill cut short.
  const size_t whole = text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n');
  for_each_line(std::string_view(text).substr(0, whole), [&](std::string_view part, size_t n) {
    Json line = parse_json(part, fmt::format("line {} of {}", n, path), 16);
    if (!line.is_object() || !line.contains("event") || std::isnan(number(line, "step"))) {
      fail(ErrorCode::kCorruptData, "[report] expected an object with event and step, found another on line {} of {}",
           n, path);
    }
    const std::string event = line["event"].is_string() ? line["event"].get<std::string>() : "";
    if (event == "start") {
      rewind_to(log.steps, number(line, "step"));
      rewind_to(log.evaluations, number(line, "step"));
      log.start = std::move(line);
      ++log.n_starts;
    } else if (event == "step") {
      log.steps.push_back(std::move(line));
    } else if (event == "eval") {
      log.evaluations.push_back(std::move(line));
    }
  });
  return log;
}

ChartSeries series(const std::vector<Json>& lines, const char* name, const std::string& label, double factor = 1) {
  ChartSeries result{label, {}, {}};
  for (const Json& line : lines) {
    result.x.push_back(number(line, "step"));
    result.y.push_back(number(line, name) * factor);
  }
  return result;
}

/// Tokens per second of each step.
ChartSeries speed(const std::vector<Json>& steps) {
  ChartSeries result{"tokens/s", {}, {}};
  for (size_t i = 1; i < steps.size(); ++i) {
    result.x.push_back(number(steps[i], "step"));
    result.y.push_back((number(steps[i], "tokens") - number(steps[i - 1], "tokens")) / number(steps[i], "seconds"));
  }
  return result;
}

/// One line a distance, in percent.
std::vector<ChartSeries> recall(const std::vector<Json>& evaluations, const char* measure) {
  std::map<double, ChartSeries> by_distance;
  for (const Json& line : evaluations) {
    const auto entries = line.find("recall");
    if (entries == line.end() || !entries->is_array()) continue;
    for (const Json& entry : *entries) {
      if (!entry.is_object()) continue;
      const double distance = number(entry, "distance");
      ChartSeries& one = by_distance[distance];
      one.name = fmt::format("{:.0f} tokens", distance);
      one.x.push_back(number(line, "step"));
      one.y.push_back(100 * number(entry, measure));
    }
  }
  std::vector<ChartSeries> result;
  for (auto& [distance, one] : by_distance) result.push_back(std::move(one));
  return result;
}

std::string text_of(const Json& line, const char* name) {
  const auto found = line.find(name);
  return found != line.end() && found->is_string() ? found->get<std::string>() : "";
}

void add_totals(const Log& log, HtmlReport& report) {
  std::vector<std::pair<std::string, std::string>> facts;
  if (!log.steps.empty()) {
    const Json& last = log.steps.back();
    double seconds = 0;
    for (const Json& step : log.steps) seconds += number(step, "seconds");
    facts.emplace_back("steps", fmt::format("{:.0f}", number(last, "step")));
    facts.emplace_back("tokens", fmt::format("{:.4g} million", number(last, "tokens") / 1e6));
    facts.emplace_back("time in steps", fmt::format("{:.1f} minutes", seconds / 60));
    facts.emplace_back("loss, running mean", fmt::format("{:.4f} nats", number(last, "loss_average")));
  }
  if (log.start.contains("parameters")) {
    facts.emplace_back("parameters", fmt::format("{:.4g} million", number(log.start, "parameters") / 1e6));
  }
  facts.emplace_back("optimizer", text_of(log.start, "optimizer"));
  if (!text_of(log.start, "precision").empty())
    facts.emplace_back("products rounded to", text_of(log.start, "precision"));
  facts.emplace_back("memory plan", text_of(log.start, "plan"));
  if (log.n_starts > 1) facts.emplace_back("resumed", fmt::format("{} times", log.n_starts - 1));
  report.facts(facts);
}

void add_recall(const Log& log, HtmlReport& report) {
  const auto values = recall(log.evaluations, "value");
  if (values.empty()) return;
  report.heading("Recall of held-out facts");
  report.chart({"Right values by distance between fact and question", "step", "percent", false, true, values});
  report.chart(
      {"Right refusals where nothing was told", "step", "percent", false, true, recall(log.evaluations, "refusal")});
}

void add_memory(const Log& log, HtmlReport& report) {
  report.heading("Memory");
  if (const auto bytes = log.start.find("bytes"); bytes != log.start.end() && bytes->is_object()) {
    std::vector<std::vector<std::string>> rows;
    for (const auto& [name, value] : bytes->items()) {
      if (value.is_number_unsigned()) rows.push_back({name, format_byte_size(value.get<uint64_t>())});
    }
    report.table(std::vector<std::string>{"class", "planned"}, rows);
  }
  constexpr double kMiB = 1.0 / (1 << 20);
  report.chart(
      {"Memory of the process", "step", "MiB", false, true, {series(log.steps, "resident_bytes", "resident", kMiB)}});
}

}  // namespace

std::string run_report(const std::string& directory) {
  const std::string path = directory + "/log.jsonl";
  if (!std::filesystem::exists(path)) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("[report] expected a run directory, found no log.jsonl in {}", directory),
                "give the directory that mneme train wrote with --out");
  }
  const Log log = read_log(path);
  const std::string name = text_of(log.start, "name");
  HtmlReport report("Training of " + (name.empty() ? directory : name));
  add_totals(log, report);
  report.heading("Loss");
  report.chart({"Training loss",
                "step",
                "nats per token",
                true,
                false,
                {series(log.steps, "loss", "steps"), series(log.steps, "loss_average", "running mean")}});
  if (!log.evaluations.empty()) {
    report.chart(
        {"Loss on held-out text",
         "step",
         "nats per token",
         false,
         false,
         {series(log.evaluations, "text_loss", "text"), series(log.evaluations, "chat_loss", "conversations")}});
  }
  add_recall(log, report);
  report.heading("Optimisation");
  report.chart({"Norm of the gradients", "step", "norm", true, false, {series(log.steps, "gradient_norm", "norm")}});
  report.chart({"Learning rate", "step", "rate", false, true, {series(log.steps, "rate", "rate")}});
  report.chart({"Speed", "step", "tokens/s", false, true, {speed(log.steps)}});
  add_memory(log, report);
  if (!log.evaluations.empty() && !text_of(log.evaluations.back(), "sample").empty()) {
    report.heading("Text of the newest evaluation");
    report.paragraph(text_of(log.evaluations.back(), "sample"));
  }
  if (std::filesystem::exists(directory + "/recipe.toml")) {
    report.heading("Recipe");
    report.preformatted(read_text_file(directory + "/recipe.toml", uint64_t{16} << 20));
  }
  return report.page();
}

}  // namespace mneme::train
