#include "model/chat/jinja/runtime.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"

namespace mneme::jinja {

std::tm system_local_time() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&now, &local);
  return local;
}

void Runtime::fail_with(std::string message, bool unsupported) const {
  // Messages are one line, and a template may put a whole conversation into one.
  constexpr size_t kLongestMessage = 500;
  if (message.size() > kLongestMessage) {
    message.resize(kLongestMessage);
    message.resize(message.size() - incomplete_utf8_tail(message));
    message += "...";
  }
  std::replace_if(
      message.begin(), message.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }, ' ');
  mneme::fail(unsupported ? ErrorCode::kUnsupported : ErrorCode::kInvalidArgument, "[render template] {}, at line {}",
              message, line_);
}

void Runtime::fail_exhausted() const {
  fail("more than {} steps: the template does not end or works on too much text", limits_.steps);
}

void Runtime::fail_undefined(const Undefined& undefined) const {
  if (undefined.name == nullptr) fail("a value is undefined");
  fail("'{}' is undefined", *undefined.name);
}

Runtime::Level::Level(Runtime& runtime, int& counter, int limit, std::string_view what) : counter_(counter) {
  if (counter >= limit) runtime.fail("more than {} {} inside each other", limit, what);
  ++counter_;
}

BoundArgs::BoundArgs(const Runtime& runtime, std::string_view function, const CallArgs& args,
                     std::initializer_list<std::string_view> names)
    : runtime_(runtime), function_(function), names_(names), values_(names.size(), nullptr) {
  if (args.positional.size() > names_.size()) {
    runtime.fail("{} takes at most {} arguments, got {}", function, names_.size(), args.positional.size());
  }
  for (size_t i = 0; i < args.positional.size(); ++i) values_[i] = &args.positional[i];
  for (const auto& [name, value] : args.named) {
    const auto slot = std::find(names_.begin(), names_.end(), name) - names_.begin();
    if (slot == std::ssize(names_)) runtime.fail("{} has no parameter '{}'", function, name);
    const Value*& target = values_[static_cast<size_t>(slot)];
    if (target != nullptr) runtime.fail("{} got two values for '{}'", function, name);
    target = &value;
  }
}

const Value& BoundArgs::required(size_t i) const {
  if (!has(i)) runtime_.fail("{} needs the argument '{}'", function_, names_[i]);
  return *values_[i];
}

Int BoundArgs::int_or(size_t i, Int fallback) const {
  if (!has(i)) return fallback;
  if (!values_[i]->is_integral()) {
    runtime_.fail("{} expects an int for '{}', got {}", function_, names_[i], values_[i]->type_name());
  }
  return values_[i]->as_int();
}

size_t BoundArgs::count_or(size_t i, size_t fallback, size_t most) const {
  if (!has(i)) return fallback;
  return static_cast<size_t>(std::clamp(int_or(i, 0), Int{0}, static_cast<Int>(most)));
}

const Text* BoundArgs::text(size_t i) const {
  if (!has(i) || values_[i]->is_none()) return nullptr;
  if (!values_[i]->is_string()) {
    runtime_.fail("{} expects a string for '{}', got {}", function_, names_[i], values_[i]->type_name());
  }
  return values_[i]->as_text().get();
}

}  // namespace mneme::jinja
