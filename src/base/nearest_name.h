#pragma once

#include <span>
#include <string>
#include <string_view>

namespace mneme {

/// "; did you mean 'kivi'?" for the known name that is at most two edits (and less than half its length) away from `name`,
/// or nothing. Made to be put at the end of a message.
std::string did_you_mean(std::string_view name, std::span<const std::string_view> known);

}  // namespace mneme
