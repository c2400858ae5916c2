#include "model/chat/jinja/functions.h"

#include <algorithm>
#include <array>

#include "model/chat/jinja/operators.h"
#include "model/chat/jinja/print.h"

namespace mneme::jinja {
namespace {

using Builtin = Value (*)(Runtime&, const CallArgs&);

class Function final : public Object {
 public:
  explicit Function(Builtin builtin) : builtin_(builtin) {}
  std::string_view type_name() const override { return "function"; }
  bool callable() const override { return true; }
  Value call(Runtime& runtime, CallArgs& args) override { return builtin_(runtime, args); }

 private:
  Builtin builtin_;
};

/// Gives nothing at the first call and its separator at each later one.
class Joiner final : public Object {
 public:
  explicit Joiner(Value separator) : separator_(std::move(separator)) {}
  std::string_view type_name() const override { return "joiner"; }
  bool callable() const override { return true; }
  Value call(Runtime& runtime, CallArgs& args) override {
    BoundArgs(runtime, "joiner", args, {});
    return std::exchange(used_, true) ? separator_ : Value("");
  }

 private:
  Value separator_;
  bool used_ = false;
};

/// Gives its values in turn, for ever.
class Cycler final : public Object {
 public:
  explicit Cycler(std::vector<Value> values) : values_(std::move(values)) {}
  std::string_view type_name() const override { return "cycler"; }
  std::optional<Value> attribute(Runtime&, std::string_view name) override {
    return name == "current" ? std::optional(values_[position_]) : std::nullopt;
  }
  std::optional<Value> call_method(Runtime& runtime, std::string_view name, CallArgs& args) override {
    if (name != "next" && name != "reset") return std::nullopt;
    BoundArgs(runtime, name, args, {});
    if (name == "reset") {
      position_ = 0;
      return nullptr;
    }
    Value value = values_[position_];
    position_ = (position_ + 1) % values_.size();
    return value;
  }

 private:
  std::vector<Value> values_;
  size_t position_ = 0;
};

Value range_function(Runtime& runtime, const CallArgs& args) {
  const BoundArgs bound(runtime, "range", args, {"start", "stop", "step"});
  bound.required(0);
  const bool only_stop = !bound.has(1);
  const Int start = only_stop ? Int{0} : bound.int_or(0, 0);
  const Int stop = bound.int_or(only_stop ? 0 : 1, 0);
  const Int step = bound.int_or(2, 1);
  if (step == 0) runtime.fail("range: step must not be 0");
  std::vector<Value> numbers;
  // A list longer than the cap ends the loop, so that the sum stays far from the range of Int unless a bound is near
  // it.
  for (Int i = start; step > 0 ? i < stop : i > stop;) {
    if (numbers.size() >= kMaxRange) runtime.fail("range: more than {} numbers", kMaxRange);
    runtime.charge_values(1);
    numbers.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return runtime.make<List>(std::move(numbers));
}

Value dict_function(Runtime& runtime, const CallArgs& args) {
  auto* dict = runtime.make<Dict>();
  if (args.positional.size() > 1) runtime.fail("dict takes one mapping or list of pairs");
  CallArgs named{{}, args.named};
  for (const Value& source : args.positional) {
    if (source.is_dict()) {
      named.positional.push_back(source);
      continue;
    }
    for (const Value& pair : elements(runtime, source)) {
      const std::vector<Value> parts = elements(runtime, pair);
      if (parts.size() != 2 || !Dict::is_key(parts[0])) runtime.fail("dict needs pairs of a key and a value");
      dict->set(parts[0], parts[1]);
    }
  }
  dict->call_method(runtime, "update", named);
  return dict;
}

Value namespace_function(Runtime& runtime, const CallArgs& args) {
  CallArgs copy = args;
  const Value source = dict_function(runtime, copy);
  auto* space = runtime.make<Namespace>();
  for (const auto& [key, value] : source.as_dict().entries()) space->set(to_text(runtime, key)->view(), value);
  return static_cast<Object*>(space);
}

Value joiner_function(Runtime& runtime, const CallArgs& args) {
  const BoundArgs bound(runtime, "joiner", args, {"sep"});
  return static_cast<Object*>(runtime.make<Joiner>(bound.value_or(0, ", ")));
}

Value cycler_function(Runtime& runtime, const CallArgs& args) {
  if (args.positional.empty() || !args.named.empty()) runtime.fail("cycler needs the values to give in turn");
  runtime.charge_values(args.positional.size());
  return static_cast<Object*>(runtime.make<Cycler>(args.positional));
}

Value raise_exception_function(Runtime& runtime, const CallArgs& args) {
  const BoundArgs bound(runtime, "raise_exception", args, {"message"});
  runtime.fail("{}", to_text(runtime, bound.required(0))->view());
}

Value strftime_now_function(Runtime& runtime, const CallArgs& args) {
  const BoundArgs bound(runtime, "strftime_now", args, {"format"});
  const TextPtr format = to_text(runtime, bound.required(0));
  runtime.charge_many(16, format->size());
  return make_text(format_time(runtime.local_time(), format->view()));
}

constexpr std::array<std::string_view, 7> kDays = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                                   "Thursday", "Friday", "Saturday"};
constexpr std::array<std::string_view, 12> kMonths = {"January",   "February", "March",    "April",
                                                      "May",       "June",     "July",     "August",
                                                      "September", "October",  "November", "December"};

std::string padded(int number, size_t width, char fill) {
  const std::string digits = fmt::format("{}", number);
  return std::string(width - std::min(width, digits.size()), fill) + digits;
}

/// Text of one field, nothing when the letter is unknown. `pad` is false after "%-".
std::optional<std::string> time_field(const std::tm& time, char letter, bool pad) {
  const auto number = [&](int value, size_t width) { return padded(value, pad ? width : 1, '0'); };
  const std::string_view day = kDays[static_cast<size_t>(time.tm_wday) % kDays.size()];
  const std::string_view month = kMonths[static_cast<size_t>(time.tm_mon) % kMonths.size()];
  switch (letter) {
    case 'a':
      return std::string(day.substr(0, 3));
    case 'A':
      return std::string(day);
    case 'b':
    case 'h':
      return std::string(month.substr(0, 3));
    case 'B':
      return std::string(month);
    case 'd':
      return number(time.tm_mday, 2);
    case 'e':
      return padded(time.tm_mday, pad ? 2 : 1, ' ');
    case 'F':
      return format_time(time, "%Y-%m-%d");
    case 'H':
      return number(time.tm_hour, 2);
    case 'I':
      return number((time.tm_hour + 11) % 12 + 1, 2);
    case 'j':
      return number(time.tm_yday + 1, 3);
    case 'm':
      return number(time.tm_mon + 1, 2);
    case 'M':
      return number(time.tm_min, 2);
    case 'p':
      return std::string(time.tm_hour < 12 ? "AM" : "PM");
    case 'S':
      return number(time.tm_sec, 2);
    case 'T':
      return format_time(time, "%H:%M:%S");
    case 'u':
      return number((time.tm_wday + 6) % 7 + 1, 1);
    case 'w':
      return number(time.tm_wday, 1);
    case 'y':
      return number(time.tm_year % 100, 2);
    case 'Y':
      return number(time.tm_year + 1900, 4);
    case '%':
      return std::string("%");
    default:
      return std::nullopt;
  }
}

}  // namespace

std::string format_time(const std::tm& time, std::string_view format) {
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    const size_t letter = i + 1 + (format.substr(i, 2) == "%-" ? 1 : 0);
    std::optional<std::string> field;
    if (format[i] == '%' && letter < format.size()) field = time_field(time, format[letter], letter == i + 1);
    if (field) {
      out += *field;
      i = letter;
    } else {
      out += format[i];
    }
  }
  return out;
}

std::vector<std::pair<std::string_view, Value>> global_functions(Runtime& runtime) {
  constexpr std::pair<std::string_view, Builtin> kFunctions[] = {
      {"cycler", cycler_function},
      {"dict", dict_function},
      {"joiner", joiner_function},
      {"namespace", namespace_function},
      {"raise_exception", raise_exception_function},
      {"range", range_function},
      {"strftime_now", strftime_now_function},
  };
  std::vector<std::pair<std::string_view, Value>> functions;
  for (const auto& [name, builtin] : kFunctions) {
    functions.emplace_back(name, static_cast<Object*>(runtime.make<Function>(builtin)));
  }
  return functions;
}

}  // namespace mneme::jinja
