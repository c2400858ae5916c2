#include "train/run_log.h"

#include <filesystem>

#include "base/atomic_file.h"
#include "base/error.h"

namespace mneme::train {

namespace {

/// Drops what a kill or a full disk left of a last line, so that the next line begins on its own.
void drop_cut_line(const std::string& path) {
  if (!std::filesystem::exists(path)) return;
  const std::string text = read_text_file(path);
  const size_t last_end = text.rfind('\n'), whole = last_end == std::string::npos ? 0 : last_end + 1;
  if (whole < text.size()) std::filesystem::resize_file(path, whole);
}

}  // namespace

RunLog::RunLog(const std::string& path) : path_(path) {
  drop_cut_line(path);
  file_ = std::fopen(path.c_str(), "a");
  if (file_ == nullptr) fail_errno("open", path);
}

RunLog::~RunLog() {
  std::fclose(file_);
}

void RunLog::write(const Json& line) {
  const std::string text = line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  if (std::fwrite(text.data(), 1, text.size(), file_) != text.size() || std::fflush(file_) != 0)
    fail_errno("write", path_);
}

}  // namespace mneme::train
