#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "base/atomic_file.h"
#include "base/byte_size.h"
#include "cli/commands.h"
#include "cli/training_watch.h"
#include "train/sweep.h"

namespace mneme::cli {
namespace {

struct SweepCommand {
  std::string file, memory;
  train::SweepOptions options;
};

void print_line(const train::SweepRun& run, const Json& result) {
  fmt::print("{:<32} loss {:.4f}, {} tokens, {:.0f} s, optimizer {}\n", run.name, result["loss"].get<double>(),
             result["tokens"].get<uint64_t>(), result["seconds"].get<double>(),
             format_byte_size(result["bytes"]["optimizer"].get<uint64_t>()));
  std::fflush(stdout);
}

void run_command(SweepCommand command, const GlobalOptions& global) {
  if (!command.memory.empty()) command.options.memory_limit = parse_byte_size(command.memory);
  std::string& directory = command.options.directory;
  if (directory.empty()) directory = "runs/" + std::filesystem::path(command.file).stem().string();
  const auto runs = train::parse_sweep(read_text_file(command.file, uint64_t{16} << 20), command.file);
  TrainingWatch watch(global.json);
  const bool complete = train::run_sweep(runs, command.options, watch.callbacks("sweep"),
                                         [&](const train::SweepRun& run, const Json& result) {
                                           watch.finish();
                                           if (global.json) {
                                             fmt::print("{}\n", result.dump());
                                           } else {
                                             print_line(run, result);
                                           }
                                         });
  if (!global.json) {
    fmt::print("{}; {}/runs.jsonl\n", complete ? "complete" : "stopped (the same command continues)", directory);
  }
}

}  // namespace

void add_train_sweep(CLI::App& train, GlobalOptions& global) {
  auto command = std::make_shared<SweepCommand>();
  CLI::App* sweep = train.add_subcommand("sweep", "Train all combinations of a recipe's axes, one after the other");
  sweep->add_option("FILE", command->file, "Recipe with [[axis.NAME]] tables (TOML)")->required();
  sweep->add_option("-o,--out", command->options.directory, "Folder for the runs (default: runs/NAME-OF-FILE)");
  sweep->add_option("--memory", command->memory, "Limit for each run (default: none)");
  sweep->add_option("--loss-tokens", command->options.loss_tokens, "Held-out tokens of the final loss")
      ->capture_default_str()
      ->check(CLI::Range(256, 100'000'000));
  sweep->footer(
      "A sweep that was stopped continues when it is started again.\nExample:\n  mneme train sweep "
      "recipes/compare/optimizers.toml --out runs/optimizers");
  sweep->callback([command, &global] { run_command(*command, global); });
}

}  // namespace mneme::cli
