#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "train/abacus/interpreter.h"
#include "train/abacus/program_maker.h"

namespace mneme::train::abacus {

/// A call and what it must give.
struct TaskTest {
  std::vector<Value> arguments;
  Value expected;
};

/// A held-out program to be written from its prompt, judged by running it.
struct Task {
  DescribedProgram program;
  std::vector<TaskTest> tests;  ///< At least three different results among them.
};

/// Far fewer than there are.
constexpr size_t kMostTasks = 10'000;

/// Programs in a row that bring no new task before the search ends; the last of kMostTasks take four or five.
constexpr size_t kMostDraws = 100'000;

/// Draws the programs that tasks are made of.
using ProgramDraw = std::function<DescribedProgram(PhiloxStream&)>;
DescribedProgram held_out_program(PhiloxStream& random);

/// `n` tasks of different keys, the same for the same seed. Half of them have a structure that training never saw, half
/// only numbers that it never saw there. Throws Error(kInvalidArgument) for more than kMostTasks and when kMostDraws
/// programs in a row bring no new one.
std::vector<Task> make_tasks(size_t n, uint64_t seed, const ProgramDraw& draw = held_out_program);

/// What became of a completion.
enum class Verdict : uint8_t {
  kPassed,
  kWrong,      ///< It runs and gives another result.
  kFailed,     ///< A run ended without a value.
  kNoProgram,  ///< It can't be parsed.
};
std::string_view verdict_name(Verdict verdict);

/// Runs what follows the prompt, up to the end of the definition, on the task's tests.
Verdict judge(const Task& task, std::string_view completion);

}  // namespace mneme::train::abacus
