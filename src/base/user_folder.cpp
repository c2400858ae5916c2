#include "base/user_folder.h"

#include <cstdlib>

#include "base/error.h"

namespace mneme {
namespace {

std::string folder_of(const char* variable, const char* below_home) {
  const char* base = std::getenv(variable);
  if (base != nullptr && *base == '/') return std::string(base) + "/mneme";
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home == '\0') {
    throw Error(ErrorCode::kNotFound, fmt::format("[user folder] expected {} or HOME in the environment, found neither", variable),
                fmt::format("set {}", variable));
  }
  return fmt::format("{}/{}/mneme", home, below_home);
}

}  // namespace

std::string user_data_folder() { return folder_of("XDG_DATA_HOME", ".local/share"); }

std::string user_cache_folder() { return folder_of("XDG_CACHE_HOME", ".cache"); }

}  // namespace mneme
