#include "model/chat/jinja/loop_state.h"

#include <algorithm>

#include "model/chat/jinja/operators.h"

namespace mneme::jinja {

std::optional<Value> LoopState::attribute(Runtime&, std::string_view name) {
  const size_t size = items_.size();
  if (name == "index0") return index_;
  if (name == "index") return index_ + 1;
  if (name == "first") return index_ == 0;
  if (name == "last") return index_ + 1 == size;
  if (name == "length") return size;
  if (name == "revindex") return size - index_;
  if (name == "revindex0") return size - index_ - 1;
  if (name == "depth0") return Value(depth_);
  if (name == "depth") return Value(depth_ + 1);
  if (name == "previtem" && index_ > 0) return items_[index_ - 1];
  if (name == "nextitem" && index_ + 1 < size) return items_[index_ + 1];
  return std::nullopt;
}

std::optional<Value> LoopState::call_method(Runtime& runtime, std::string_view name, CallArgs& args) {
  if (name == "cycle") {
    if (args.positional.empty() || !args.named.empty()) runtime.fail("loop.cycle needs the values to give in turn");
    return args.positional[index_ % args.positional.size()];
  }
  if (name == "changed") {
    const auto same = [&](const Value& a, const Value& b) { return equals(runtime, a, b); };
    const bool changed = !last_changed_ || !std::equal(last_changed_->begin(), last_changed_->end(),
                                                       args.positional.begin(), args.positional.end(), same);
    last_changed_ = args.positional;
    return changed;
  }
  return std::nullopt;
}

Value LoopState::call(Runtime& runtime, CallArgs& args) {
  if (!loop_.recursive) runtime.fail("loop(...) needs a loop marked 'recursive'");
  const BoundArgs bound(runtime, "loop", args, {"iterable"});
  return interpreter_.recurse(loop_, outer_, depth_ + 1, bound.required(0));
}

std::optional<Value> Macro::attribute(Runtime& runtime, std::string_view name) {
  if (name == "name") return Value(std::string_view(definition_.name));
  if (name == "arguments") {
    std::vector<Value> names;
    for (const Parameter& parameter : definition_.parameters) names.emplace_back(std::string_view(parameter.name));
    return runtime.make_list(std::move(names), true);
  }
  return std::nullopt;
}

}  // namespace mneme::jinja
