#include <fmt/format.h>

#include <memory>
#include <string>

#include "base/atomic_file.h"
#include "base/byte_size.h"
#include "base/error.h"
#include "base/json.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/model_options.h"
#include "eval/own_text.h"
#include "eval/stack_curve.h"

namespace mneme::cli {
namespace {

struct StackCommand {
  ModelOptions model;
  std::string text;
  size_t n_sizes = 32;
  uint32_t window = 512;
  uint64_t max_windows = 8;
};

void run_stack(const StackCommand& command, const GlobalOptions& global) {
  Ledger ledger;
  PlanRequest request = command.model.request();
  if (!request.context) request.context = command.window;
  const auto engine = Engine::load(command.model.model, request, ledger);
  if (engine->stack() == nullptr) {
    fail(ErrorCode::kInvalidArgument, "[eval stack] expected a model of BITSTACK matrices, found none in {}",
         command.model.model);
  }
  const size_t n_tokens = command.window * std::max<uint64_t>(1, command.max_windows);
  const std::vector<TokenId> tokens = command.text.empty()
                                          ? own_text(*engine, n_tokens)
                                          : engine->tokenizer().encode(read_text_file(command.text), {false, false});
  PerplexityOptions options;
  options.window = command.window;
  options.max_windows = command.max_windows;
  Progress progress("sizes", command.n_sizes, "sizes");
  const std::vector<StackPoint> points = measure_stack_curve(*engine, tokens, options, command.n_sizes,
                                                             [&](size_t done, size_t) { progress.update(done); });
  if (global.json) {
    Json rows = Json::array();
    for (const StackPoint& point : points) {
      rows.push_back({{"blocks", point.blocks},
                      {"weight_bytes", point.bytes},
                      {"bits_per_weight", point.bits_per_weight},
                      {"perplexity", point.quality.perplexity},
                      {"nll", point.quality.nll},
                      {"nll_error", point.quality.nll_error}});
    }
    fmt::print("{}\n", Json{{"tokens_scored", points.front().quality.n_scored}, {"sizes", rows}}.dump(2));
    return;
  }
  fmt::print("{:>7} {:>10} {:>13} {:>11}\n", "blocks", "weights", "bits a weight", "perplexity");
  for (const StackPoint& point : points) {
    fmt::print("{:>7} {:>10} {:>13.3f} {:>11.4f}\n", point.blocks, format_byte_size(point.bytes), point.bits_per_weight,
               point.quality.perplexity);
  }
}

}  // namespace

void add_eval_stack(CLI::App& eval, GlobalOptions& global) {
  auto options = std::make_shared<StackCommand>();
  CLI::App* command = eval.add_subcommand("stack", "Perplexity of a BITSTACK model at many sizes");
  options->model.add_to(*command);
  command->add_option("--text", options->text, "Text to measure on (default: text that the model makes up)");
  command->add_option("--sizes", options->n_sizes, "Sizes, from one block of each matrix to all")
      ->check(CLI::Range(size_t{2}, size_t{1} << 20))
      ->capture_default_str();
  command->add_option("--window", options->window, "Tokens of one window of the text")
      ->check(CLI::Range(8u, 1u << 20))
      ->capture_default_str();
  command->add_option("--max-windows", options->max_windows, "Windows of it that are read; 0: all")
      ->capture_default_str();
  command->footer("Example: mneme eval stack stack.gguf --text held-out.txt --sizes 40");
  command->callback([options, &global] { run_stack(*options, global); });
}

}  // namespace mneme::cli
