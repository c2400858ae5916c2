// Any text as a program of Abacus, called with arguments drawn from its own bytes: it is refused with an Error, or ends
// within its limits; the same call gives the same outcome; what is cut after the first definition parses no worse.
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "train/abacus/interpreter.h"

namespace {

using namespace mneme;
using namespace mneme::train::abacus;

void require(bool holds, const char* property) {
  if (holds) return;
  std::fprintf(stderr, "violated: %s\n", property);
  std::abort();
}

std::vector<Value> arguments_for(const Function& function, const uint8_t* data, size_t size) {
  std::vector<Value> out;
  for (uint32_t i = 0; i < function.n_parameters; ++i) {
    const int64_t seed = size > 0 ? static_cast<int8_t>(data[i % size]) : 0;
    out.push_back(seed % 2 == 0 ? Value::of(seed) : Value::of({seed, 3, -seed, INT64_MAX}));
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  require(text.starts_with(first_definition(text)), "what is cut is a beginning of the text");
  try {
    const Program program = parse(text);
    const Limits limits{5000, 200, 2000};
    for (const Function& function : program.functions) {
      const std::vector<Value> arguments = arguments_for(function, data, size);
      const Outcome first = run(program, function.name, arguments, limits);
      const Outcome again = run(program, function.name, arguments, limits);
      require(first.failure == again.failure && first.steps == again.steps && first.value == again.value,
              "a run is a function of program and arguments");
      require(first.failure == Failure::kSteps || first.steps <= limits.steps, "runs end within their steps");
      require(first.value.list == nullptr || first.value.list->size() <= limits.cells + 4, "lists are bounded");
    }
  } catch (const Error&) {
  }
  return 0;
}
