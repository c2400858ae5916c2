#pragma once

#include <optional>
#include <string_view>

#include "model/chat/jinja/runtime.h"

namespace mneme::jinja {

/// The result of `text.name(args)` for the methods of Python's str; nothing for a name that is not among them.
std::optional<Value> call_string_method(Runtime& runtime, const Text& text, std::string_view name,
                                        const CallArgs& args);

}  // namespace mneme::jinja
