#pragma once

#include <span>
#include <string>

namespace mneme {

/// GBNF for a JSON string, with its quotes, that is none of `names`: for the keys of further properties. Uses the rule
/// `char`. Leaves out some keys that would be right: those that differ from a name by an escaped character only, and
/// those that share the first 32 characters (fewer when there are more than 500 names) with a longer name.
std::string other_key_gbnf(std::span<const std::string> names);

}  // namespace mneme
