#pragma once

#include "model/chat/jinja/runtime.h"

namespace mneme::jinja {

/// Python's `format % arguments`: "%s", "%5d", "%.2f", "%(name)s", ... A tuple gives several arguments, a dict named
/// ones.
Text percent_format(Runtime& runtime, const Text& format, const Value& arguments);

/// Python's `format.format(arguments)`: "{}", "{0}", "{name:>8}", "{:.2f}", "{!r}".
Text brace_format(Runtime& runtime, const Text& format, const CallArgs& args);

}  // namespace mneme::jinja
