#include "engine/grammar/json_pointer.h"

#include <algorithm>
#include <optional>

namespace mneme {
namespace {

std::optional<int> hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return std::nullopt;
}

/// Percent escapes of a URI fragment, then the escapes of a JSON pointer.
std::string unescape(std::string_view step) {
  std::string bytes;
  for (size_t i = 0; i < step.size(); ++i) {
    if (step[i] == '%' && i + 2 < step.size()) {
      const std::optional<int> high = hex_value(step[i + 1]), low = hex_value(step[i + 2]);
      if (high && low) {
        bytes += static_cast<char>(*high * 16 + *low);
        i += 2;
        continue;
      }
    }
    bytes += step[i];
  }
  std::string out;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] == '~' && i + 1 < bytes.size() && (bytes[i + 1] == '0' || bytes[i + 1] == '1')) {
      out += bytes[++i] == '0' ? '~' : '/';
    } else {
      out += bytes[i];
    }
  }
  return out;
}

std::optional<size_t> list_index(const std::string& step) {
  if (step.empty() || step.size() > 9 || step.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  return std::stoul(step);
}

}  // namespace

std::string json_path(std::string_view path, std::string_view step) {
  constexpr size_t kLongestPath = 240;
  std::string out(path);
  if (out.ends_with("/...")) return out;
  out += '/';
  if (out.size() > kLongestPath) return out + "...";
  for (const char c : brief_text(step)) {
    if (c == '~') {
      out += "~0";
    } else if (c == '/') {
      out += "~1";
    } else {
      out += c;
    }
  }
  return out;
}

const Json* find_json_reference(const Json& root, std::string_view reference) {
  if (reference == "#") return &root;
  if (!reference.starts_with("#/")) return nullptr;
  const Json* place = &root;
  for (size_t begin = 2; begin <= reference.size();) {
    const size_t end = std::min(reference.find('/', begin), reference.size());
    const std::string step = unescape(reference.substr(begin, end - begin));
    const std::optional<size_t> index = list_index(step);
    if (place->is_object() && place->contains(step)) {
      place = &(*place)[step];
    } else if (place->is_array() && index && *index < place->size()) {
      place = &(*place)[*index];
    } else {
      return nullptr;
    }
    begin = end + 1;
  }
  return place;
}

}  // namespace mneme
