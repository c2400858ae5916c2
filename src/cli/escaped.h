#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace mneme::cli {

/// Text from a file made fit for a terminal: control characters and bad UTF-8 escaped as in JSON, without the quotes.
inline std::string escaped(std::string_view text) {
  const std::string json = Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
  return json.substr(1, json.size() - 2);
}

}  // namespace mneme::cli
