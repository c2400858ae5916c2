#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace mneme {

/// `path` with one more step, escaped as in a JSON pointer (RFC 6901), for messages: long steps and long paths are cut.
std::string json_path(std::string_view path, std::string_view step);

/// The part of `root` that a reference names: "#" or "#/..." with the escapes of JSON pointers and of URIs. Null when
/// it is not of this form, or when there is no such part.
const Json* find_json_reference(const Json& root, std::string_view reference);

}  // namespace mneme
