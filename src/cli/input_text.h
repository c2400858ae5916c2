#pragma once

#include <string>
#include <vector>

namespace mneme::cli {

/// All of standard input.
std::string read_stdin();
/// Lines of a text, without line ends; an empty last line does not count.
std::vector<std::string> split_lines(const std::string& text);

}  // namespace mneme::cli
