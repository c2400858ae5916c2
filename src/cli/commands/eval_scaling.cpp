#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/html_report.h"
#include "base/json.h"
#include "cli/commands.h"
#include "eval/scaling_fit.h"

namespace mneme::cli {
namespace {

Json to_json(const PrecisionLaw& law, bool with_precision) {
  Json json = {{"n", law.n}, {"alpha", law.alpha}, {"d", law.d}, {"beta", law.beta}, {"epsilon", law.epsilon}};
  if (with_precision) json.update({{"gamma", law.gamma}, {"delta", law.delta}, {"nu", law.nu}});
  return json;
}

/// What a reader of gamma, delta and nu must know when the runs don't show them; empty otherwise.
std::string precision_note(const ScalingFit& fit) {
  if (!fit.has_precision || fit.most_precision_loss >= fit.mean_error) return "";
  return fmt::format(
      "low precision costs a run at most {:.4f} nats by this law, less than its mean error: gamma, delta and nu are "
      "not "
      "known from these runs",
      fit.most_precision_loss);
}

struct FitCommand {
  std::string file, out;
  FitOptions options;
};

/// Measured against predicted losses, in order of the prediction.
LineChart fit_chart(const std::vector<ScalingRun>& runs, const PrecisionLaw& law) {
  ChartSeries full{"full precision", {}, {}}, low{"low precision", {}, {}}, equal{"equal", {}, {}};
  std::vector<std::pair<double, const ScalingRun*>> sorted;
  for (const ScalingRun& run : runs) sorted.emplace_back(predicted_loss(law, run.setting), &run);
  std::sort(sorted.begin(), sorted.end());
  for (const auto& [predicted, run] : sorted) {
    ChartSeries& series = run->setting.log2_block > 0 ? low : full;
    series.x.push_back(predicted);
    series.y.push_back(run->loss);
  }
  equal.x = equal.y = {sorted.front().first, sorted.back().first};
  return {"Measured against predicted loss", "predicted, nats", "measured, nats", false, false, {full, low, equal}};
}

void write_report(const std::string& path, const std::vector<ScalingRun>& runs, const ScalingFit& fit) {
  HtmlReport report("Scaling law");
  report.paragraph(
      fmt::format("{} full-precision and {} low-precision runs; R2 {:.5f}, mean absolute error {:.4f} nats.",
                  fit.n_full, fit.n_low, fit.r2, fit.mean_error));
  if (const std::string note = precision_note(fit); !note.empty()) report.paragraph("Note: " + note + ".");
  std::vector<std::vector<std::string>> rows;
  const Json law = to_json(fit.law, fit.has_precision), low = to_json(fit.low, true), high = to_json(fit.high, true);
  for (const auto& [name, value] : law.items()) {
    rows.push_back({name, fmt::format("{:.5g}", value.get<double>()), fmt::format("{:.5g}", low[name].get<double>()),
                    fmt::format("{:.5g}", high[name].get<double>())});
  }
  report.table(std::vector<std::string>{"constant", "fitted", "5 %", "95 %"}, rows);
  report.chart(fit_chart(runs, fit.law));
  AtomicFile file(path);
  file.write(report.page());
  file.commit();
}

void run_fit(const FitCommand& command, const GlobalOptions& global) {
  const std::vector<ScalingRun> runs = read_scaling_runs(command.file);
  const ScalingFit fit = fit_scaling_law(runs, command.options);
  if (!command.out.empty()) write_report(command.out, runs, fit);
  const Json law = to_json(fit.law, fit.has_precision), low = to_json(fit.low, true), high = to_json(fit.high, true);
  if (global.json) {
    fmt::print("{}\n", Json{{"law", law},
                            {"low", to_json(fit.low, fit.has_precision)},
                            {"high", to_json(fit.high, fit.has_precision)},
                            {"full_runs", fit.n_full},
                            {"low_precision_runs", fit.n_low},
                            {"r2", fit.r2},
                            {"mean_error", fit.mean_error},
                            {"most_precision_loss", fit.most_precision_loss}}
                           .dump(2));
    return;
  }
  fmt::print("{} full-precision and {} low-precision runs; R2 {:.5f}, mean absolute error {:.4f} nats\n", fit.n_full,
             fit.n_low, fit.r2, fit.mean_error);
  for (const auto& [name, value] : law.items()) {
    fmt::print("{:<8} {:>12.5g}   90 % of refits: {:.5g} to {:.5g}\n", name, value.get<double>(),
               low[name].get<double>(), high[name].get<double>());
  }
  if (const std::string note = precision_note(fit); !note.empty()) fmt::print("note: {}\n", note);
}

struct PlanCommand {
  double compute = 1e21, parameters = 0, tokens = 0, block = 128;
};

/// The best bits, size and data at the given compute, one of size and data given or none.
PrecisionPlan best_plan(const PlanCommand& command, double log2_block) {
  const PrecisionLaw& law = kPublishedLaw;
  const double work = command.compute / kComputePerBit;
  if (command.parameters > 0) {
    const double bits = best_bits_for_parameters(law, command.parameters, command.compute, log2_block);
    return {bits, command.parameters, work / (bits * command.parameters), 0};
  }
  if (command.tokens > 0) {
    const double bits = best_bits_for_tokens(law, command.tokens, log2_block);
    return {bits, work / (bits * command.tokens), command.tokens, 0};
  }
  return search_best_plan(law, command.compute, log2_block);
}

void run_plan(const PlanCommand& command, const GlobalOptions& global) {
  const double log2_block = std::log2(command.block);
  const PrecisionLaw& law = kPublishedLaw;
  const PrecisionPlan plan = best_plan(command, log2_block);
  const int bits = std::max(3, static_cast<int>(std::ceil(plan.bits)));
  const BitLayout layout = best_layout(law, bits);
  const TrainingSetting setting{plan.parameters, plan.tokens, static_cast<double>(layout.exponent_bits),
                                static_cast<double>(layout.mantissa_bits), log2_block};
  const double loss = predicted_loss(law, setting), critical = critical_tokens(law, setting);
  const double effective = effective_parameters(law, plan.parameters, plan.tokens, plan.bits, log2_block);
  const bool inside = in_published_range(plan.parameters, plan.tokens);
  if (global.json) {
    fmt::print("{}\n", Json{{"best_bits", plan.bits},
                            {"exponent_bits", layout.exponent_bits},
                            {"mantissa_bits", layout.mantissa_bits},
                            {"block", command.block},
                            {"parameters", plan.parameters},
                            {"tokens", plan.tokens},
                            {"loss", loss},
                            {"critical_tokens", critical},
                            {"effective_parameters", effective},
                            {"extrapolated", !inside}}
                           .dump());
    return;
  }
  fmt::print("best precision {:.2f} bits; E{}M{} with a scale every {} elements\n", plan.bits, layout.exponent_bits,
             layout.mantissa_bits, command.block);
  fmt::print(
      "{:.3g} parameters on {:.3g} tokens: predicted loss {:.4f} nats; more than {:.3g} tokens would make it worse\n",
      plan.parameters, plan.tokens, loss, critical);
  fmt::print("as good as {:.3g} parameters in full precision\n", effective);
  if (!inside)
    fmt::print("note: outside the sizes and data that the constants were fitted on (41M-70B, 10-100 billion tokens)\n");
}

}  // namespace

void add_eval_scaling(CLI::App& eval, GlobalOptions& global) {
  auto fitting = std::make_shared<FitCommand>();
  CLI::App* fit =
      eval.add_subcommand("scaling-fit", "Fit the scaling law of size, data and precision to training runs");
  fit->add_option("RUNS", fitting->file,
                  "JSON lines: parameters, tokens, loss, and exponent_bits, mantissa_bits, block")
      ->required();
  fit->add_option("--bootstrap", fitting->options.n_bootstrap, "Refits for the intervals")
      ->capture_default_str()
      ->check(CLI::Range(0, 100000));
  fit->add_option("--seed", fitting->options.seed, "Seed of the refits")->capture_default_str();
  fit->add_option("-o,--out", fitting->out, "Write a page with the constants and a plot");
  fit->footer(
      "block is the number of elements that share a scale, or \"channel\".\nExample: mneme eval scaling-fit runs.jsonl "
      "--out scaling.html");
  fit->callback([fitting, &global] { run_fit(*fitting, global); });

  auto planning = std::make_shared<PlanCommand>();
  CLI::App* plan = eval.add_subcommand("scaling-plan", "The best training precision by the published law");
  plan->add_option("--compute", planning->compute, "Operations, (6/16) bits x parameters x tokens")
      ->capture_default_str()
      ->check(CLI::Range(1e12, 1e40));
  CLI::Option* parameters =
      plan->add_option("--parameters", planning->parameters, "Size, without embeddings, when it is given")
          ->check(CLI::Range(1e3, 1e15));
  CLI::Option* tokens =
      plan->add_option("--tokens", planning->tokens, "Data, when they are given")->check(CLI::Range(1e3, 1e20));
  parameters->excludes(tokens);
  plan->add_option("--block", planning->block, "Elements that share a scale")
      ->capture_default_str()
      ->check(CLI::Range(2.0, 1e9));
  plan->footer("Example: mneme eval scaling-plan --compute 1e24");
  plan->callback([planning, &global] { run_plan(*planning, global); });
}

}  // namespace mneme::cli
