#include "context/attend_worker.h"

#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

#include "base/byte_size.h"
#include "base/json.h"
#include "budget/resident.h"
#include "cli/commands.h"

namespace mneme::cli {
namespace {

struct Options {
  std::string listen = "127.0.0.1:7117", folder, memory;
};

void attend_worker(const Options& options, const GlobalOptions& global) {
  if (!options.folder.empty()) ::setenv("MNEME_KV_FOLDER", options.folder.c_str(), 1);
  Ledger ledger(options.memory.empty() ? machine_memory_bytes() : parse_byte_size(options.memory));
  // Before there are threads, so that all of them leave the signals to the one that waits for them.
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  AttendWorker worker(options.listen, ledger);
  if (global.json) {
    fmt::print("{}\n", Json{{"listening", worker.address()}}.dump());
  } else {
    fmt::print("listening at {}; Ctrl-C ends\n", worker.address());
  }
  std::fflush(stdout);
  std::thread waiting([&] {
    int signal = 0;
    ::sigwait(&ends, &signal);
    worker.stop();
  });
  waiting.detach();  // it ends with the process when nobody sends a signal
  worker.run();
}

}  // namespace

void add_attend_worker(CLI::App& app, GlobalOptions& global) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "attend-worker", "Keep keys and values of other processes in files here, and compute attention beside them");
  command->add_option("-l,--listen", options->listen, "HOST:PORT (port 0: any free one), or the path of a Unix socket")
      ->capture_default_str();
  command->add_option("--folder", options->folder,
                      "Where the files lie (default: $MNEME_KV_FOLDER, else $TMPDIR, else /var/tmp)");
  command->add_option("-m,--memory", options->memory,
                      "Limit of tails and working memory, e.g. 2G (default: the machine's)");
  command->footer(
      "Clients name it in their policy: mneme run MODEL --kv instinfer:127.0.0.1:7117,density=1/8\n"
      "Whoever reaches the address may use it: there are no passwords. Sequences end with their connection.\n"
      "Example: mneme attend-worker --listen 127.0.0.1:7117 --folder /mnt/ssd");
  command->callback([options, &global] { attend_worker(*options, global); });
}

}  // namespace mneme::cli
