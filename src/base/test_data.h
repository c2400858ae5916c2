#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

namespace mneme {

/// Path of test data that is shared between checkouts and not part of the repository: $MNEME_SHARED/name, or
/// ../shared/name beside the source tree. Nothing when it is missing; tests then skip with a message.
inline std::optional<std::string> shared_path(const std::string& name) {
  const char* root = std::getenv("MNEME_SHARED");
  const std::filesystem::path path = (root != nullptr ? std::filesystem::path(root)
                                                      : std::filesystem::path(MNEME_SOURCE_DIR).parent_path() / "shared") /
                                     name;
  if (!std::filesystem::exists(path)) return std::nullopt;
  return path.string();
}

}  // namespace mneme
