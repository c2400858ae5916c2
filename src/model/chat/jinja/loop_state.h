#pragma once

#include <vector>

#include "model/chat/jinja/interpreter.h"

namespace mneme::jinja {

/// The variable `loop` of a for loop.
class LoopState final : public Object {
 public:
  LoopState(Interpreter& interpreter, const For& loop, Scope* outer, int depth, std::vector<Value> items)
      : interpreter_(interpreter), loop_(loop), outer_(outer), depth_(depth), items_(std::move(items)) {}

  std::string_view type_name() const override { return "loop"; }
  bool callable() const override { return loop_.recursive; }
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override;
  std::optional<Value> call_method(Runtime& runtime, std::string_view name, CallArgs& args) override;
  /// `loop(children)` of a recursive loop.
  Value call(Runtime& runtime, CallArgs& args) override;

  const std::vector<Value>& items() const { return items_; }
  void move_to(size_t index) { index_ = index; }

 private:
  Interpreter& interpreter_;
  const For& loop_;
  Scope* outer_;
  int depth_;
  std::vector<Value> items_;
  size_t index_ = 0;
  std::optional<std::vector<Value>> last_changed_;
};

/// A macro, or the body of a call block.
class Macro final : public Object {
 public:
  Macro(Interpreter& interpreter, const MacroDefinition& definition, Scope* closure)
      : interpreter_(interpreter), definition_(definition), closure_(closure) {}

  std::string_view type_name() const override { return "macro"; }
  bool callable() const override { return true; }
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override;
  Value call(Runtime&, CallArgs& args) override { return interpreter_.call_macro(definition_, closure_, args); }

 private:
  Interpreter& interpreter_;
  const MacroDefinition& definition_;
  Scope* closure_;
};

}  // namespace mneme::jinja
