#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "train/abacus/syntax.h"

namespace mneme::train::abacus {

/// A number, or a list of numbers that values share.
struct Value {
  int64_t number = 0;
  std::shared_ptr<const std::vector<int64_t>> list;  ///< Null for numbers.

  static Value of(int64_t number) { return {number, nullptr}; }
  static Value of(std::vector<int64_t> list) {
    return {0, std::make_shared<const std::vector<int64_t>>(std::move(list))};
  }
  bool operator==(const Value& other) const;
};

/// What a run may use. Counts, not seconds: the same program ends the same way on every machine.
struct Limits {
  uint64_t steps = 20'000;  ///< Expressions evaluated and elements visited.
  uint32_t depth = 400;     ///< Evaluations inside each other.
  uint64_t cells = 20'000;  ///< Elements of all lists made, 8 bytes each; lists that are gone count too.
};

/// Why a run has no value.
enum class Failure : uint8_t {
  kNone,
  kNoFunction,  ///< No function of that name and number of parameters.
  kType,        ///< A list where a number is wanted, or the other way round.
  kOverflow,    ///< A number beyond 64 bits.
  kDivision,    ///< By zero.
  kEmpty,       ///< An element of a list that has none there.
  kSteps,
  kDepth,
  kMemory,
};
std::string_view failure_name(Failure failure);

struct Outcome {
  Failure failure = Failure::kNone;
  Value value;
  uint64_t steps = 0;
};

/// Calls the function `name` of a program. Never throws for what the program does.
Outcome run(const Program& program, std::string_view name, std::span<const Value> arguments, const Limits& limits = {});

}  // namespace mneme::train::abacus
