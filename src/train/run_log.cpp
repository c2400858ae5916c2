#include "train/run_log.h"

#include "base/error.h"

namespace mneme::train {

RunLog::RunLog(const std::string& path) : path_(path), file_(std::fopen(path.c_str(), "a")) {
  if (file_ == nullptr) fail_errno("open", path);
}

RunLog::~RunLog() { std::fclose(file_); }

void RunLog::write(const Json& line) {
  const std::string text = line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  if (std::fwrite(text.data(), 1, text.size(), file_) != text.size() || std::fflush(file_) != 0) fail_errno("write", path_);
}

}  // namespace mneme::train
