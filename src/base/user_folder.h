#pragma once

#include <string>

namespace mneme {

/// Where a user's lasting files are: $XDG_DATA_HOME/mneme, else ~/.local/share/mneme. A relative $XDG_DATA_HOME counts as
/// none, as the XDG base directory specification wants. Throws Error(kNotFound) when there is no HOME either.
std::string user_data_folder();

/// Where what can be fetched or made again is: $XDG_CACHE_HOME/mneme, else ~/.cache/mneme. The same errors.
std::string user_cache_folder();

}  // namespace mneme
