#include "recall/import/import.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>

#include "base/atomic_file.h"
#include "base/error.h"

namespace mneme::recall {
namespace {

constexpr std::array<std::string_view, 5> kEndings = {".md", ".markdown", ".txt", ".jsonl", ".json"};

std::vector<std::string> files_of(const std::string& path) {
  if (!std::filesystem::exists(path)) fail(ErrorCode::kNotFound, "[import] {}: no such file or folder", path);
  if (!std::filesystem::is_directory(path)) return {path};
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(
           path, std::filesystem::directory_options::skip_permission_denied)) {
    const std::string name = entry.path().string();
    const bool known = std::any_of(kEndings.begin(), kEndings.end(), [&](auto end) { return name.ends_with(end); });
    if (known && entry.is_regular_file()) files.push_back(name);
  }
  std::sort(files.begin(), files.end());
  if (files.empty()) {
    fail(ErrorCode::kNotFound, "[import] {}: expected files that end in .md, .txt, .jsonl or .json, found none", path);
  }
  return files;
}

Time time_of_file(const std::string& path) {
  const auto time = std::chrono::file_clock::to_sys(std::filesystem::last_write_time(path));
  return std::chrono::duration_cast<std::chrono::microseconds>(time.time_since_epoch()).count();
}

}  // namespace

ImportReport import_path(Store& store, const std::string& path, const ImportOptions& options,
                         FunctionRef<void(const std::string&)> each) {
  ImportReport report;
  for (const std::string& file : files_of(path)) {
    each(file);
    const std::string text = read_text_file(file);
    const ImportSource source{file, options.scope, options.keep_users, time_of_file(file)};
    const Imported imported =
        parse_import(text, options.format.value_or(guess_import_format(file, text)), source);
    ++report.files;
    report.skipped += imported.skipped;
    for (const Added& added : store.add(imported.records)) ++(added.is_new ? report.added : report.known);
  }
  return report;
}

}  // namespace mneme::recall
