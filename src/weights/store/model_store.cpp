#include "weights/store/model_store.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "base/error.h"
#include "base/user_folder.h"

namespace mneme {
namespace {

namespace fs = std::filesystem;

/// Regular files below `folder` as files of a repository.
std::vector<HubFile> files_below(const fs::path& folder) {
  constexpr int kMaxDepth = 8;
  std::vector<HubFile> files;
  std::error_code error;
  for (auto each = fs::recursive_directory_iterator(folder, error);
       !error && each != fs::recursive_directory_iterator(); each.increment(error)) {
    if (each.depth() > kMaxDepth) each.disable_recursion_pending();
    if (!each->is_regular_file(error)) continue;
    const std::string path = fs::relative(each->path(), folder, error).string();
    if (is_safe_relative_path(path)) files.push_back({path, each->file_size(error), {}});
  }
  std::sort(files.begin(), files.end(), [](const HubFile& a, const HubFile& b) { return a.path < b.path; });
  return files;
}

/// A pulled model by its hub reference; nothing when it is not there.
std::optional<std::string> find_pulled(const HubReference& reference, const std::string& store) {
  const std::string folder = hub_folder(store, reference);
  const std::vector<HubFile> files = files_below(folder);
  if (files.empty()) return std::nullopt;
  if (reference.selector == "safetensors") return folder;
  try {
    return folder + "/" + choose_hub_files(files, reference)[0].path;
  } catch (const Error& e) {
    if (e.code() == ErrorCode::kNotFound) return std::nullopt;
    throw;
  }
}

/// A pulled model by the name of its file, with or without ".gguf".
std::optional<std::string> find_by_file_name(const std::string& name, const std::string& store) {
  std::vector<std::string> found;
  for (const HubFile& file : files_below(store)) {
    const std::string file_name = fs::path(file.path).filename().string();
    if (file_name == name || file_name == name + ".gguf") found.push_back(file.path);
  }
  if (found.empty()) return std::nullopt;
  if (found.size() > 1) {
    fail(ErrorCode::kInvalidArgument, "[model] '{}' may be {} or {} in {}", name, found[0], found[1], store);
  }
  return store + "/" + found[0];
}

}  // namespace

std::string hub_folder(const std::string& store, const HubReference& reference) {
  const std::string revision = reference.revision == "main" ? std::string() : "@" + reference.revision;
  return store + "/" + reference.name() + revision;
}

std::string model_store_folder() {
  const char* models = std::getenv("MNEME_MODELS");
  return models != nullptr && *models != '\0' ? models : user_cache_folder();
}

std::string resolve_model(const std::string& name) {
  std::error_code error;
  if (fs::exists(name, error)) return name;
  return resolve_model(name, model_store_folder());
}

std::string resolve_model(const std::string& name, const std::string& store) {
  std::error_code error;
  if (fs::exists(name, error)) return name;
  const auto reference = parse_hub_reference(name);
  if (reference) {
    if (const auto path = find_pulled(*reference, store)) return *path;
  }
  if (name.find('/') == std::string::npos && is_safe_relative_path(name)) {
    if (const auto path = find_by_file_name(name, store)) return *path;
  }
  throw Error(ErrorCode::kNotFound, fmt::format("[model] {}: neither a file nor a pulled model", name),
              reference ? fmt::format("mneme pull {} fetches it", name) : "");
}

}  // namespace mneme
