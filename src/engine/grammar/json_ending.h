#pragma once

#include <string_view>

namespace mneme {

// Which way leads to the end of a JSON value, for walks of tests and fuzz targets that have to stop.

/// Whether `text`, the beginning of a JSON value, ends inside of a string.
inline bool ends_inside_string(std::string_view text) {
  bool inside = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (inside && text[i] == '\\') {
      ++i;
    } else if (text[i] == '"') {
      inside = !inside;
    }
  }
  return inside;
}

/// How much one more byte helps to come to an end: quotes inside of strings, closing brackets outside, values without
/// parts before those with parts, escapes and white space last.
inline int closeness(char byte, bool in_string) {
  const std::string_view order = in_string ? "\\-:.0a\"" : "\n\t {[-,e.\"19:0tfn]}";
  const size_t place = order.find(byte);
  return place == order.npos ? 1 : 2 + static_cast<int>(place);
}

}  // namespace mneme
