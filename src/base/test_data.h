#pragma once

#include <optional>
#include <string>

namespace mneme {

/// Path of `name` in the source tree that the tests were built from. Only test_data.cpp is compiled with that tree's
/// path, so that a compiler cache serves every other file to any checkout.
std::string source_path(const std::string& name);

/// Path of test data that is shared between checkouts and not part of the repository: $MNEME_SHARED/name, or
/// ../shared/name beside the source tree. Nothing when it is missing; tests then skip with a message.
std::optional<std::string> shared_path(const std::string& name);

}  // namespace mneme
