#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/quant_study_report.h"

namespace mneme::cli {
namespace {

struct QuantStudyCommand {
  std::vector<std::string> models, calibrations = {"general", "code", "mixed"}, text;
  std::string html;
  QuantStudyOptions options;
};

void run_quant_study(const QuantStudyCommand& command, const GlobalOptions& global) {
  QuantStudyOptions options = command.options;
  options.calibrations.clear();
  for (const std::string& name : command.calibrations) options.calibrations.push_back(parse_calibration_kind(name));
  options.texts.text = command.text;
  if (command.text.empty()) options.texts.books = "shared:data/books";
  if (const std::string books = train::recipe_path(options.texts.books);
      !books.empty() && !std::filesystem::exists(books)) {
    throw Error(ErrorCode::kNotFound, fmt::format("[quant-study] expected books in {}, found none", books),
                "give a text file or folder of your own with --text");
  }
  const size_t n_rows = study_rows(options);
  std::vector<ModelStudy> studies;
  {
    Progress progress("quant-study", n_rows * command.models.size(), "rows");
    for (const std::string& model : command.models) {
      const size_t before = n_rows * studies.size();
      studies.push_back(study_quantization(
          model, options, [&](size_t done, const std::string& note) { progress.update(before + done, note); }));
    }
  }
  if (!command.html.empty()) {
    AtomicFile file(command.html);
    file.write(quant_study_page(studies, options));
    file.commit();
  }
  if (global.json) {
    fmt::print("{}\n", quant_study_json(studies, options).dump(2));
    return;
  }
  fmt::print("{} tasks, {} completions of each, temperature {}\n", options.n_tasks, options.completions.per_task,
             options.completions.temperature);
  for (const ModelStudy& study : studies) fmt::print("\n{}", quant_study_text(study));
}

}  // namespace

void add_eval_quant_study(CLI::App& eval, GlobalOptions& global) {
  auto study = std::make_shared<QuantStudyCommand>();
  CLI::App* command = eval.add_subcommand(
      "quant-study", "Programs that a model writes at 8 to 2 bits, by calibration text, judged by running them");
  QuantStudyOptions& options = study->options;
  command->add_option("MODEL", study->models, "Models that write Abacus, trained as recipes/coder.toml; one or more")
      ->required();
  command->add_option("--bits", options.widths, "Widths 8, 4, 3, 2, or names of formats, such as Q8_0 or AQLM1x8g4")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--calibration", study->calibrations, "Calibration texts: general, code, mixed")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option(
      "--text", study->text,
      "Files and folders that general text is from (default: data/books of $MNEME_SHARED or ../shared)");
  command->add_option("--tasks", options.n_tasks, "Held-out tasks")
      ->check(CLI::Range(size_t{1}, train::abacus::kMostTasks))
      ->capture_default_str();
  command->add_option("-n,--completions", options.completions.per_task, "Completions of each task")
      ->check(CLI::Range(1u, 10'000u))
      ->capture_default_str();
  command->add_option("--temp", options.completions.temperature, "Temperature")
      ->check(CLI::Range(0.0f, 10.0f))
      ->capture_default_str();
  command->add_option("--seed", options.seed, "Of tasks, draws and calibration texts")->capture_default_str();
  command->add_option("--calibration-tokens", options.calibration_tokens, "Tokens of a calibration text")
      ->check(CLI::Range(size_t{256}, size_t{1} << 24))
      ->capture_default_str();
  command
      ->add_option("--perplexity-tokens", options.perplexity_tokens,
                   "Tokens of held-out text, and of held-out programs")
      ->check(CLI::Range(size_t{256}, size_t{1} << 24))
      ->capture_default_str();
  command
      ->add_option("--tune", options.tune_steps,
                   "Also train a low-rank adapter on each quantised model for so many steps; 0: don't")
      ->check(CLI::Range(0u, 1'000'000u))
      ->capture_default_str();
  command->add_option("--html", study->html, "Write tables and a chart as a page");
  command->add_option("--work", options.folder, "Folder for files that go again (default: that for temporary files)");
  command->footer(
      "A width is the AQLM setting that costs about so many bits on the model's matrices; the table says how many it "
      "does.\nExample: mneme eval quant-study models/coder-mini.gguf --bits 4,3,2,Q4_0 --html study.html");
  command->callback([study, &global] { run_quant_study(*study, global); });
}

}  // namespace mneme::cli
