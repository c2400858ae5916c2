#include "cli/training_watch.h"

#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

namespace mneme::cli {
namespace {

volatile std::sig_atomic_t g_stop = 0;

void ask_to_stop(int) {
  g_stop = 1;
}

}  // namespace

TrainingWatch::TrainingWatch(bool quiet) : quiet_(quiet) {
  std::signal(SIGINT, ask_to_stop);
  std::signal(SIGTERM, ask_to_stop);
}

train::Trainer::Callbacks TrainingWatch::callbacks(const std::string& name) {
  train::Trainer::Callbacks callbacks;
  callbacks.stop = [] { return g_stop != 0; };
  if (!quiet_) {
    callbacks.message = [](const std::string& message) {
      if (::isatty(STDERR_FILENO) != 0) fmt::print(stderr, "{}\n", message);
    };
  }
  callbacks.step = [this, name](const train::StepReport& report) {
    if (!progress_) progress_ = std::make_unique<Progress>(name, report.total_steps, "steps");
    progress_->update(report.step,
                      fmt::format("loss {:.3f}, {:.0f} tokens/s, rate {:.1e}, {:.0f} min left", report.loss_average,
                                  report.tokens_per_second, report.rate, report.seconds_left / 60));
  };
  return callbacks;
}

}  // namespace mneme::cli
