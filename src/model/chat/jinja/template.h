#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/chat/jinja/interpreter.h"
#include "model/chat/jinja/parser.h"
#include "model/chat/jinja/runtime.h"

/// A subset of the template language Jinja, as chat templates use it: every statement and expression of Jinja except
/// template inheritance and includes, the filters, tests and methods that templates of language models call, Python's
/// way of printing, and the white-space settings that model files assume. Not here: automatic escaping, line
/// statements, extensions other than loop controls, `do` and `generation`. Templates are untrusted: they reach nothing
/// outside the values they are given, and Limits bound their time and memory.
namespace mneme::jinja {

class Template {
 public:
  /// Throws Error with the line for what cannot be parsed.
  explicit Template(std::string_view source) : ast_(parse(source)) {}

  using Variables = std::vector<std::pair<std::string, Value>>;
  /// The output for the given variables, whose objects belong to `runtime`. Safe to call from many threads, each with a
  /// runtime of its own. Throws Error(kInvalidArgument or kUnsupported) with the line.
  Text render(Runtime& runtime, const Variables& variables) const {
    Interpreter interpreter(ast_, runtime);
    for (const auto& [name, value] : variables) interpreter.define(name, value);
    return interpreter.run();
  }

 private:
  Ast ast_;
};

}  // namespace mneme::jinja
