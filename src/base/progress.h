#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace mneme {

/// A one-line progress bar on stderr: shown only when stderr is a terminal, redrawn at most ten times a second, erased at
/// the end. Units are whatever the caller counts (`unit`, e.g. "tensors"; "bytes" are printed as sizes).
class Progress {
 public:
  Progress(std::string title, uint64_t total, std::string unit);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();

  /// Sets the amount done; `note` replaces the text at the end of the line when not empty.
  void update(uint64_t done, const std::string& note = {});

 private:
  std::string title_, unit_, note_;
  uint64_t total_;
  bool visible_, drawn_ = false;
  std::chrono::steady_clock::time_point start_, last_;
};

}  // namespace mneme
