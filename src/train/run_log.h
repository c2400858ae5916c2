#pragma once

#include <cstdio>
#include <string>

#include "base/json.h"

namespace mneme::train {

/// Append-only JSON-lines file of a run; each line is flushed, so that a killed run keeps what it said.
class RunLog {
 public:
  /// Opens for appending, without the unfinished last line of a killed run. Throws Error(kIo).
  explicit RunLog(const std::string& path);
  RunLog(const RunLog&) = delete;
  RunLog& operator=(const RunLog&) = delete;
  ~RunLog();

  void write(const Json& line);

 private:
  std::string path_;
  std::FILE* file_ = nullptr;
};

}  // namespace mneme::train
