#include <fmt/format.h>

#include <cstdio>
#include <exception>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/parallel.h"
#include "cli/commands.h"
#include "kernels/cpu.h"

namespace {

constexpr const char* kDescription =
    "mneme runs language models on the memory you have.\n"
    "Start with:  mneme run MODEL.gguf --memory 4G        Help on a command:  mneme COMMAND --help";

/// One line for a person, one JSON object for a machine; the process ends with status 1 (2 when the command line is
/// wrong).
int report(const mneme::Error& error, bool json) {
  if (json) {
    mneme::Json body = {{"error", {{"code", mneme::error_code_name(error.code())}, {"message", error.what()}}}};
    if (!error.hint().empty()) body["error"]["hint"] = error.hint();
    fmt::print(stderr, "{}\n", body.dump(-1, ' ', false, mneme::Json::error_handler_t::replace));
  } else if (error.hint().empty()) {
    fmt::print(stderr, "error: {}\n", error.what());
  } else {
    fmt::print(stderr, "error: {} ({})\n", error.what(), error.hint());
  }
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace mneme::cli;
  CLI::App app{kDescription, "mneme"};
  app.fallthrough();  // Before the subcommands, which inherit it: --json may stand behind them.
  GlobalOptions global;
  app.set_version_flag(
      "--version",
      [] {
        return fmt::format("mneme {}, kernels for {}", MNEME_VERSION,
                           mneme::kernels::target_name(mneme::kernels::active_target()));
      },
      "Print the version and the instruction set in use");
  app.add_flag("--json", global.json, "Print results as JSON on stdout");
  app.add_flag("-v,--verbose", global.verbose, "Say more on stderr");
  app.add_option("-t,--threads", global.threads, "Worker threads (default: all cores)")->check(CLI::Range(1, 1024));
  add_apply_template(app, global);
  add_attend_worker(app, global);
  add_bench(app, global);
  add_convert(app, global);
  add_cube(app, global);
  add_detokenize(app, global);
  add_embed(app, global);
  add_eval(app, global);
  add_forget(app, global);
  add_import(app, global);
  add_info(app, global);
  add_logits(app, global);
  add_plan(app, global);
  add_pull(app, global);
  add_quantize(app, global);
  add_recall(app, global);
  add_remember(app, global);
  add_run(app, global);
  add_session(app, global);
  add_tokenize(app, global);
  add_train(app, global);
  app.require_subcommand(1);
  app.parse_complete_callback([&] {
    if (global.threads > 0) mneme::set_n_threads(global.threads);
    if (global.verbose) mneme::set_log_level(spdlog::level::info);
  });
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help, --version
    const std::vector<std::string> rest = app.remaining();
    const bool unknown = app.get_subcommands().empty() && !rest.empty();
    report(mneme::Error(mneme::ErrorCode::kInvalidArgument,
                        unknown ? fmt::format("unknown command '{}'", rest.front()) : e.what(), "see --help"),
           global.json);
    return 2;
  } catch (const mneme::Error& e) {
    return report(e, global.json);
  } catch (const std::exception& e) {
    return report(mneme::Error(mneme::ErrorCode::kIo, e.what()), global.json);
  }
}
