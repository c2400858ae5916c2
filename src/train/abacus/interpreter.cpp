#include "train/abacus/interpreter.h"

#include <algorithm>
#include <utility>

namespace mneme::train::abacus {
namespace {

/// Ends a run from wherever it is.
struct Stop {
  Failure failure;
};

using List = std::vector<int64_t>;

class Run {
 public:
  Run(const Program& program, const Limits& limits) : program_(program), limits_(limits) {}

  Value call(const Function& function, std::span<const Value> arguments) {
    const size_t outer = base_, base = frames_.size();
    frames_.resize(base + function.n_slots);
    std::copy(arguments.begin(), arguments.end(), frames_.begin() + static_cast<long>(base));
    base_ = base;
    Value value = evaluate(function.body);
    frames_.resize(base);
    base_ = outer;
    return value;
  }

  uint64_t steps() const { return steps_; }

 private:
  [[noreturn]] static void stop(Failure failure) { throw Stop{failure}; }

  void step(uint64_t n = 1) {
    steps_ += n;
    if (steps_ > limits_.steps) stop(Failure::kSteps);
  }

  static int64_t number(const Value& value) {
    if (value.list != nullptr) stop(Failure::kType);
    return value.number;
  }
  static const List& list(const Value& value) {
    if (value.list == nullptr) stop(Failure::kType);
    return *value.list;
  }

  /// Counts elements before they are made.
  void take_cells(uint64_t n) {
    if (n > limits_.cells - cells_) stop(Failure::kMemory);
    cells_ += n;
    step(n);
  }

  Value evaluate(uint32_t index) {
    step();
    if (depth_ == limits_.depth) stop(Failure::kDepth);
    ++depth_;
    Value value = evaluate_node(program_.nodes[index]);
    --depth_;
    return value;
  }

  Value evaluate_node(const Node& node) {
    switch (node.kind) {
      case NodeKind::kNumber:
        return Value::of(node.number);
      case NodeKind::kName:
        return frames_[base_ + node.slot];
      case NodeKind::kIf:
        return evaluate(number(evaluate(node.children[0])) != 0 ? node.children[1] : node.children[2]);
      case NodeKind::kLet: {
        Value bound = evaluate(node.children[0]);
        frames_[base_ + node.slot] = std::move(bound);
        return evaluate(node.children[1]);
      }
      case NodeKind::kMap:
      case NodeKind::kKeep:
        return each(node);
      case NodeKind::kFold:
        return fold(node);
      case NodeKind::kBuiltin:
        return apply(node);
      case NodeKind::kCall: {
        Value arguments[kMostParameters];
        for (size_t i = 0; i < node.children.size(); ++i) arguments[i] = evaluate(node.children[i]);
        return call(program_.functions[node.slot], {arguments, node.children.size()});
      }
    }
    return {};
  }

  Value each(const Node& node) {
    const Value source = evaluate(node.children[1]);
    List out;
    for (const int64_t element : list(source)) {
      frames_[base_ + node.slot] = Value::of(element);
      const int64_t result = number(evaluate(node.children[0]));
      if (node.kind == NodeKind::kKeep && result == 0) continue;
      take_cells(1);
      out.push_back(node.kind == NodeKind::kKeep ? element : result);
    }
    return Value::of(std::move(out));
  }

  Value fold(const Node& node) {
    Value sum = evaluate(node.children[0]);
    const Value source = evaluate(node.children[2]);
    for (const int64_t element : list(source)) {
      frames_[base_ + node.slot] = std::move(sum);
      frames_[base_ + node.slot + 1] = Value::of(element);
      sum = evaluate(node.children[1]);
    }
    return sum;
  }

  static int64_t floor_quotient(int64_t a, int64_t b) {
    if (b == 0) stop(Failure::kDivision);
    if (b == -1) return subtract(0, a);  // the one quotient that overflows
    return a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0);
  }
  static int64_t floor_rest(int64_t a, int64_t b) {
    if (b == 0) stop(Failure::kDivision);
    if (b == -1) return 0;
    const int64_t rest = a % b;
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
  }
  static int64_t add(int64_t a, int64_t b) {
    int64_t out = 0;
    if (__builtin_add_overflow(a, b, &out)) stop(Failure::kOverflow);
    return out;
  }
  static int64_t subtract(int64_t a, int64_t b) {
    int64_t out = 0;
    if (__builtin_sub_overflow(a, b, &out)) stop(Failure::kOverflow);
    return out;
  }
  static int64_t multiply(int64_t a, int64_t b) {
    int64_t out = 0;
    if (__builtin_mul_overflow(a, b, &out)) stop(Failure::kOverflow);
    return out;
  }

  static size_t count_of(int64_t wanted, size_t most) {
    return wanted <= 0 ? 0 : static_cast<size_t>(std::min<uint64_t>(static_cast<uint64_t>(wanted), most));
  }

  Value extreme(const std::vector<Value>& x, bool largest) {
    if (x.size() == 2) {
      const int64_t a = number(x[0]), b = number(x[1]);
      return Value::of(largest ? std::max(a, b) : std::min(a, b));
    }
    const List& values = list(x[0]);
    if (values.empty()) stop(Failure::kEmpty);
    step(values.size());
    return Value::of(largest ? *std::max_element(values.begin(), values.end())
                             : *std::min_element(values.begin(), values.end()));
  }

  Value element(const Value& of, uint64_t i) {
    const List& values = list(of);
    if (i >= values.size()) stop(Failure::kEmpty);
    return Value::of(values[i]);
  }

  Value range(int64_t first, int64_t last) {
    if (last < first) return Value::of(List());
    const uint64_t n_less_one = static_cast<uint64_t>(last) - static_cast<uint64_t>(first);
    if (n_less_one >= limits_.cells) stop(Failure::kMemory);
    take_cells(n_less_one + 1);
    List out(n_less_one + 1);
    for (uint64_t i = 0; i <= n_less_one; ++i) out[i] = static_cast<int64_t>(static_cast<uint64_t>(first) + i);
    return Value::of(std::move(out));
  }

  Value apply(const Node& node) {
    std::vector<Value> x;
    x.reserve(node.children.size());
    for (const uint32_t child : node.children) x.push_back(evaluate(child));
    const auto a = [&] { return number(x[0]); };
    const auto b = [&] { return number(x[1]); };
    switch (node.builtin) {
      case Builtin::kAdd:
        return Value::of(add(a(), b()));
      case Builtin::kSub:
        return Value::of(subtract(a(), b()));
      case Builtin::kMul:
        return Value::of(multiply(a(), b()));
      case Builtin::kDiv:
        return Value::of(floor_quotient(a(), b()));
      case Builtin::kMod:
        return Value::of(floor_rest(a(), b()));
      case Builtin::kLess:
        return Value::of(int64_t{a() < b()});
      case Builtin::kGreater:
        return Value::of(int64_t{a() > b()});
      case Builtin::kEqual:
        return Value::of(int64_t{a() == b()});
      case Builtin::kAnd:
        return Value::of(int64_t{a() != 0 && b() != 0});
      case Builtin::kOr:
        return Value::of(int64_t{a() != 0 || b() != 0});
      case Builtin::kNot:
        return Value::of(int64_t{a() == 0});
      case Builtin::kAbs:
        return Value::of(a() < 0 ? subtract(0, a()) : a());
      case Builtin::kEven:
        return Value::of(int64_t{a() % 2 == 0});
      case Builtin::kOdd:
        return Value::of(int64_t{a() % 2 != 0});
      case Builtin::kMin:
        return extreme(x, false);
      case Builtin::kMax:
        return extreme(x, true);
      case Builtin::kLen:
        return Value::of(static_cast<int64_t>(list(x[0]).size()));
      case Builtin::kFirst:
        return element(x[0], 0);
      case Builtin::kLast:
        return element(x[0], list(x[0]).size() - 1);
      case Builtin::kNth:
        return element(x[1], static_cast<uint64_t>(a()));
      case Builtin::kRange:
        return range(a(), b());
      default:
        return apply_to_lists(node.builtin, x);
    }
  }

  /// Those that visit or make whole lists.
  Value apply_to_lists(Builtin builtin, const std::vector<Value>& x) {
    if (builtin == Builtin::kSum) {
      int64_t sum = 0;
      step(list(x[0]).size());
      for (const int64_t v : list(x[0])) sum = add(sum, v);
      return Value::of(sum);
    }
    if (builtin == Builtin::kList) {
      take_cells(x.size());
      List out;
      for (const Value& value : x) out.push_back(number(value));
      return Value::of(std::move(out));
    }
    if (builtin == Builtin::kRev || builtin == Builtin::kSort) {
      take_cells(list(x[0]).size());
      List out = list(x[0]);
      if (builtin == Builtin::kRev) std::reverse(out.begin(), out.end());
      if (builtin == Builtin::kSort) std::sort(out.begin(), out.end());
      return Value::of(std::move(out));
    }
    const List& second = list(x[1]);
    if (builtin == Builtin::kTake || builtin == Builtin::kDrop) {
      const size_t n = count_of(number(x[0]), second.size());
      const bool takes = builtin == Builtin::kTake;
      take_cells(takes ? n : second.size() - n);
      const auto split = second.begin() + static_cast<long>(n);
      return Value::of(takes ? List(second.begin(), split) : List(split, second.end()));
    }
    // kCons and kCat.
    const List first = builtin == Builtin::kCons ? List{number(x[0])} : list(x[0]);
    take_cells(first.size() + second.size());
    List out = first;
    out.insert(out.end(), second.begin(), second.end());
    return Value::of(std::move(out));
  }

  const Program& program_;
  const Limits& limits_;
  std::vector<Value> frames_;
  size_t base_ = 0;
  uint32_t depth_ = 0;
  uint64_t steps_ = 0, cells_ = 0;
};

}  // namespace

bool Value::operator==(const Value& other) const {
  if ((list == nullptr) != (other.list == nullptr)) return false;
  return list == nullptr ? number == other.number : *list == *other.list;
}

std::string_view failure_name(Failure failure) {
  switch (failure) {
    case Failure::kNone:
      return "none";
    case Failure::kNoFunction:
      return "no_function";
    case Failure::kType:
      return "type";
    case Failure::kOverflow:
      return "overflow";
    case Failure::kDivision:
      return "division";
    case Failure::kEmpty:
      return "empty";
    case Failure::kSteps:
      return "steps";
    case Failure::kDepth:
      return "depth";
    case Failure::kMemory:
      return "memory";
  }
  return "unknown";
}

Outcome run(const Program& program, std::string_view name, std::span<const Value> arguments, const Limits& limits) {
  Outcome outcome;
  const Function* function = program.find(name);
  if (function == nullptr || function->n_parameters != arguments.size()) {
    outcome.failure = Failure::kNoFunction;
    return outcome;
  }
  Run machine(program, limits);
  try {
    outcome.value = machine.call(*function, arguments);
  } catch (const Stop& stop) {
    outcome.failure = stop.failure;
  }
  outcome.steps = machine.steps();
  return outcome;
}

}  // namespace mneme::train::abacus
