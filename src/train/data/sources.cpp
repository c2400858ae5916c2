#include "train/data/sources.h"

#include <cstdlib>

namespace mneme::train {
namespace {

std::vector<std::string> recipe_paths(const std::vector<std::string>& paths) {
  std::vector<std::string> result;
  for (const std::string& path : paths) result.push_back(recipe_path(path));
  return result;
}

}  // namespace

DataSources open_sources(const SourceOptions& options, std::vector<std::string> stories) {
  DataSources sources;
  if (!stories.empty() || !options.books.empty() || !options.text.empty()) {
    sources.texts = std::make_unique<TextSource>(
        std::move(stories), options.books.empty() ? "" : recipe_path(options.books), recipe_paths(options.text));
  }
  if (!options.chat.empty()) sources.chat = std::make_unique<ChatSource>(recipe_paths(options.chat));
  return sources;
}

std::string recipe_path(const std::string& path) {
  constexpr std::string_view kShared = "shared:";
  if (!path.starts_with(kShared)) return path;
  const char* root = std::getenv("MNEME_SHARED");
  return std::string(root != nullptr ? root : "../shared") + "/" + path.substr(kShared.size());
}

}  // namespace mneme::train
