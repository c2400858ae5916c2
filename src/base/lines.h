#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace mneme {

/// Calls use(line, number) for the lines of `text` that are not blank, without their ends; numbers count all lines from 1.
template <typename Use>
void for_each_line(std::string_view text, Use use) {
  size_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    ++number;
    if (line.find_first_not_of(" \t\r") != line.npos) use(line, number);
    begin = end + 1;
  }
}

}  // namespace mneme
