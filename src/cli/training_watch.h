#pragma once

#include <memory>

#include "base/progress.h"
#include "train/trainer.h"

namespace mneme::cli {

/// What a terminal wants from training: progress on stderr, and Ctrl-C or SIGTERM end it after a checkpoint.
class TrainingWatch {
 public:
  /// Installs the signal handlers. `quiet`: no messages of long preparations.
  explicit TrainingWatch(bool quiet);

  /// For one run; the watch must outlive it.
  train::Trainer::Callbacks callbacks(const std::string& name);
  /// Ends the line of progress.
  void finish() { progress_.reset(); }

 private:
  bool quiet_;
  std::unique_ptr<Progress> progress_;
};

}  // namespace mneme::cli
