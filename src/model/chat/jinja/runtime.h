#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/chat/jinja/value.h"

namespace mneme::jinja {

/// What one rendering may use before it is stopped with an Error.
struct Limits {
  /// Evaluated nodes of the template. Text and containers count too: every kBytesPerStep bytes that an operation reads
  /// or makes are one step, so this bounds time and memory alike (10^6 steps: 256 MiB produced in all).
  uint64_t steps = 1'000'000;
  size_t output_bytes = size_t{8} << 20;
  int call_depth = 100;  ///< Macros, call blocks and recursive loops inside each other.
};

inline constexpr size_t kBytesPerStep = 256;
/// Longest list that range() gives.
inline constexpr size_t kMaxRange = 100'000;
/// Expressions and statements that may be under evaluation at once; keeps the native stack small.
inline constexpr int kMaxEvaluationDepth = 1000;
/// Containers inside containers that are printed or compared.
inline constexpr int kMaxValueDepth = 128;

/// Gives the local date and time.
using Clock = std::function<std::tm()>;
/// Local time of this machine.
std::tm system_local_time();

/// Arguments of a call: by position and by name.
struct CallArgs {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

/// State of one rendering that operators, filters and functions share: what is left of the limits, the objects it owns,
/// the line that messages name, and the clock.
class Runtime {
 public:
  Runtime(const Limits& limits, Clock clock)
      : limits_(limits),
        bytes_left_(std::min(limits.steps, UINT64_MAX / kBytesPerStep) * kBytesPerStep),
        clock_(std::move(clock)) {}
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  const Limits& limits() const { return limits_; }
  std::tm local_time() const { return clock_ ? clock_() : system_local_time(); }

  /// Counts one evaluated node at `line`.
  void step(uint32_t line) {
    line_ = line;
    charge(kBytesPerStep);
  }
  /// Counts bytes that an operation is about to read or make; call it before allocating. Fails at the limit.
  void charge(size_t bytes) {
    if (bytes > bytes_left_) fail_exhausted();
    bytes_left_ -= bytes;
  }
  /// Counts `count` pieces of `bytes` each.
  void charge_many(size_t bytes, size_t count) {
    if (bytes > 0 && count > bytes_left_ / bytes) fail_exhausted();
    bytes_left_ -= bytes * count;
  }
  void charge_values(size_t count) { charge_many(sizeof(Value), count); }
  void at_line(uint32_t line) { line_ = line; }
  uint32_t line() const { return line_; }

  /// Makes an object that lives until the end of the rendering.
  template <typename T, typename... Args>
  T* make(Args&&... args) {
    charge(sizeof(T));
    auto object = std::make_unique<T>(std::forward<Args>(args)...);
    T* raw = object.get();
    objects_.push_back(std::move(object));
    return raw;
  }
  List* make_list(std::vector<Value> items, bool is_tuple = false) {
    charge_values(items.size());
    return make<List>(std::move(items), is_tuple);
  }

  /// Throws Error(kInvalidArgument): "[render template] message, at line N".
  template <typename... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    fail_with(fmt::format(format, std::forward<Args>(args)...), false);
  }
  /// The same with Error(kUnsupported): valid Jinja that this subset lacks.
  template <typename... Args>
  [[noreturn]] void fail_unsupported(fmt::format_string<Args...> format, Args&&... args) const {
    fail_with(fmt::format(format, std::forward<Args>(args)...), true);
  }
  /// Throws for a use of an undefined value.
  [[noreturn]] void fail_undefined(const Undefined& undefined) const;

  /// Counts a level of evaluation, or of macro calls, for as long as it lives.
  class Level {
   public:
    Level(Runtime& runtime, int& counter, int limit, std::string_view what);
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    ~Level() { --counter_; }

   private:
    int& counter_;
  };
  Level enter_evaluation() { return {*this, evaluation_depth_, kMaxEvaluationDepth, "expressions and blocks"}; }
  Level enter_call() { return {*this, call_depth_, limits_.call_depth, "calls"}; }

 private:
  [[noreturn]] void fail_with(std::string message, bool unsupported) const;
  [[noreturn]] void fail_exhausted() const;

  Limits limits_;
  uint64_t bytes_left_;
  Clock clock_;
  uint32_t line_ = 1;
  int evaluation_depth_ = 0, call_depth_ = 0;
  std::vector<std::unique_ptr<Object>> objects_;
};

/// The arguments of a builtin, matched to parameter names: too many, unknown or doubled ones are errors.
class BoundArgs {
 public:
  BoundArgs(const Runtime& runtime, std::string_view function, const CallArgs& args,
            std::initializer_list<std::string_view> names);

  /// Whether argument `i` was given.
  bool has(size_t i) const { return values_[i] != nullptr; }
  /// Argument `i`, which must have been given.
  const Value& required(size_t i) const;
  const Value& value_or(size_t i, const Value& fallback) const { return has(i) ? *values_[i] : fallback; }
  Int int_or(size_t i, Int fallback) const;
  /// A count between 0 and `most`; smaller and larger numbers are cut to it.
  size_t count_or(size_t i, size_t fallback, size_t most = SIZE_MAX) const;
  bool flag(size_t i) const { return has(i) && values_[i]->truthy(); }
  /// A string argument; null when not given.
  const Text* text(size_t i) const;

 private:
  const Runtime& runtime_;
  std::string_view function_;
  std::vector<std::string_view> names_;
  std::vector<const Value*> values_;
};

}  // namespace mneme::jinja
