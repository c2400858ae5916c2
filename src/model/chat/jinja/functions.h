#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "model/chat/jinja/runtime.h"

namespace mneme::jinja {

/// The functions that every template can call: range, dict, namespace, joiner, cycler, raise_exception, strftime_now.
/// A template's own variables of these names hide them.
std::vector<std::pair<std::string_view, Value>> global_functions(Runtime& runtime);

/// Python's strftime with English names, for the fields that templates use: %a %A %b %B %d %e %F %H %I %j %m %M %p %S
/// %T %u %w %y %Y %%, each also with "-" for no padding. Other fields stay as they are.
std::string format_time(const std::tm& time, std::string_view format);

}  // namespace mneme::jinja
