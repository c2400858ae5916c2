#include <fmt/format.h>

#include <memory>
#include <string>

#include "base/byte_size.h"
#include "base/json.h"
#include "base/parallel.h"
#include "cli/commands.h"
#include "cli/fetch_counts.h"
#include "cli/model_options.h"
#include "engine/engine.h"
#include "eval/speed.h"
#include "kernels/cpu.h"
#include "kernels/memory_bandwidth.h"

namespace mneme::cli {
namespace {

struct Options {
  ModelOptions model;
  SpeedOptions speed;
  std::string size = "1G";
  uint32_t repetitions = 7;
};

void print_rate(const char* what, const char* unit, const SampleStatistics& rate, double divide) {
  fmt::print("{:<10} {:>9.2f} {}   (min {:.2f}, max {:.2f})\n", what, rate.median / divide, unit, rate.min / divide,
             rate.max / divide);
}

Json machine() {
  return {{"threads", n_threads()}, {"target", kernels::target_name(kernels::active_target())}};
}

void bench_model(const Options& options, const GlobalOptions& global, bool decode) {
  Ledger ledger;
  PlanRequest request = options.model.request();
  if (!request.context) request.context = options.speed.depth + options.speed.n_tokens;
  const auto engine = Engine::load(options.model.model, request, ledger);
  const SpeedResult result = decode ? decode_speed(*engine, options.speed) : prefill_speed(*engine, options.speed);
  if (global.json) {
    Json out = {{"bench", decode ? "decode" : "prefill"},
                {"model", options.model.model},
                {"tokens", options.speed.n_tokens},
                {"depth", options.speed.depth},
                {"repeated_page", options.speed.repeat_page},
                {"sequences", engine->plan().n_sequences},
                {"kv", request.kv.name()},
                {"repetitions", options.speed.repetitions},
                {"machine", machine()},
                {"tokens_per_second", to_json(result.tokens_per_second)}};
    if (decode) {
      SampleStatistics bytes = result.tokens_per_second;
      for (double* x : {&bytes.median, &bytes.min, &bytes.max}) *x *= result.bytes_per_token;
      out["bytes_per_second"] = to_json(bytes);
      out["state_bytes"] = result.state_bytes;
    }
    if (result.fetches.wanted > 0) {
      out["kv_fetches"] = fetch_json(result.fetches);
    }
    fmt::print("{}\n", out.dump());
    return;
  }
  print_rate(decode ? "decode" : "prefill", "tokens/s", result.tokens_per_second, 1);
  if (decode) {
    fmt::print("{:<10} {:>9.2f} GB/s of weights and context\n", "",
               result.tokens_per_second.median * result.bytes_per_token / 1e9);
    const MemoryPlan& plan = engine->plan();
    fmt::print("{:<10} {:>9} sequence{} with {} of keys and values each\n", "", plan.n_sequences,
               plan.n_sequences == 1 ? "" : "s", format_byte_size(result.state_bytes));
    if (result.fetches.wanted > 0) {
      fmt::print("{:<10} {}\n", "", fetch_text(result.fetches));
    }
  }
}

void add_model_bench(CLI::App& parent, GlobalOptions& global, bool decode) {
  auto options = std::make_shared<Options>();
  CLI::App* command = parent.add_subcommand(
      decode ? "decode" : "prefill", decode ? "Tokens a second of answers" : "Tokens a second of reading a prompt");
  if (!decode) options->speed.n_tokens = 512;
  options->model.add_to(*command, decode);
  command->add_option("-n,--tokens", options->speed.n_tokens, "Tokens of one repetition")->capture_default_str();
  command->add_option("-d,--depth", options->speed.depth, "Tokens in the context before")->capture_default_str();
  if (decode) {
    command->add_flag("--repeat-page", options->speed.repeat_page,
                      "Fill the depth with copies of one page, or, in a form without pages to copy, with its tokens in "
                      "random order: in seconds, and as fast to decode behind");
  }
  command->add_option("-r,--repetitions", options->speed.repetitions, "Repetitions after the warm-up")
      ->capture_default_str();
  command->callback([options, decode, &global] { bench_model(*options, global, decode); });
}

}  // namespace

void add_bench(CLI::App& app, GlobalOptions& global) {
  CLI::App* command = app.add_subcommand("bench", "Measure speed: decode, prefill, attention, membw, ann");
  command->require_subcommand(1);
  command->footer("Example: mneme bench decode model.gguf -n 64 --json");
  add_model_bench(*command, global, true);
  add_model_bench(*command, global, false);

  add_bench_attention(*command, global);
  add_bench_ann(*command, global);

  auto options = std::make_shared<Options>();
  CLI::App* membw = command->add_subcommand("membw", "Bytes a second that all threads read from memory");
  membw->add_option("--size", options->size, "Memory to read through")->capture_default_str();
  membw->add_option("-r,--repetitions", options->repetitions, "Repetitions")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  membw->callback([options, &global] {
    const auto measured =
        kernels::measure_read_bandwidth(parse_byte_size(options->size), static_cast<int>(options->repetitions));
    const SampleStatistics rate{measured.median, measured.min, measured.max};
    if (global.json) {
      fmt::print("{}\n", Json{{"bench", "membw"}, {"machine", machine()}, {"bytes_per_second", to_json(rate)}}.dump());
    } else {
      print_rate("membw", "GB/s", rate, 1e9);
    }
  });
}

}  // namespace mneme::cli
