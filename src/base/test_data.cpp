#include "base/test_data.h"

#include <cstdlib>
#include <filesystem>

namespace mneme {

std::string source_path(const std::string& name) {
  return std::string(MNEME_SOURCE_DIR "/") + name;
}

std::optional<std::string> shared_path(const std::string& name) {
  const char* root = std::getenv("MNEME_SHARED");
  const std::filesystem::path path = (root != nullptr ? std::filesystem::path(root)
                                                      : std::filesystem::path(MNEME_SOURCE_DIR).parent_path() / "shared") /
                                     name;
  if (!std::filesystem::exists(path)) return std::nullopt;
  return path.string();
}

}  // namespace mneme
