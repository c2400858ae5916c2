#include "train/abacus/task.h"

#include <algorithm>
#include <optional>
#include <set>

#include "base/error.h"

namespace mneme::train::abacus {
namespace {

constexpr size_t kTests = 20, kLeastResults = 3;

int64_t number_from(PhiloxStream& random, int64_t least, int64_t most) {
  return least + static_cast<int64_t>(random.next_below(static_cast<uint64_t>(most - least + 1)));
}

/// Random arguments: lists for "xs", small counts for the n of a range, else numbers of either sign.
std::vector<Value> arguments_of(PhiloxStream& random, std::string_view structure, size_t n_parameters) {
  std::vector<Value> out;
  for (size_t i = 0; i < n_parameters; ++i) {
    if (structure.starts_with("xs")) {
      std::vector<int64_t> list(random.next_below(10));
      for (int64_t& v : list) v = number_from(random, -20, 30);
      out.push_back(Value::of(std::move(list)));
    } else {
      out.push_back(
          Value::of(structure.starts_with("range") ? number_from(random, 1, 40) : number_from(random, -20, 30)));
    }
  }
  return out;
}

/// Tests of a program, or nothing when its results hardly differ.
std::vector<TaskTest> tests_of(PhiloxStream& random, const DescribedProgram& described) {
  const Program program = parse(described.prompt + described.solution);
  std::vector<TaskTest> tests;
  std::vector<Value> results;
  for (size_t tries = 0; tests.size() < kTests && tries < 10 * kTests; ++tries) {
    TaskTest test;
    test.arguments = arguments_of(random, described.structure, program.find("f")->n_parameters);
    const Outcome outcome = run(program, "f", test.arguments);
    if (outcome.failure != Failure::kNone) continue;  // such as the largest of no numbers
    test.expected = outcome.value;
    if (std::find(results.begin(), results.end(), test.expected) == results.end()) results.push_back(test.expected);
    tests.push_back(std::move(test));
  }
  if (tests.size() < kTests || results.size() < kLeastResults) tests.clear();
  return tests;
}

}  // namespace

DescribedProgram held_out_program(PhiloxStream& random) {
  return make_program(random, Split::kHeldOut);
}

std::vector<Task> make_tasks(size_t n, uint64_t seed, const ProgramDraw& draw) {
  if (n > kMostTasks) fail(ErrorCode::kInvalidArgument, "[abacus] expected at most {} tasks, found {}", kMostTasks, n);
  std::vector<Task> tasks;
  std::set<std::string> keys;
  PhiloxStream random(seed, 0x7461736B);
  size_t draws = 0;
  while (tasks.size() < n) {
    const bool wants_new_structure = tasks.size() % 2 == 0;
    if (draws++ == kMostDraws) {
      fail(
          ErrorCode::kInvalidArgument,
          "[abacus] expected {} different tasks, found {} and in {} more programs none with {} that training never saw",
          n, tasks.size(), kMostDraws, wants_new_structure ? "a structure" : "only numbers");
    }
    Task task;
    task.program = draw(random);
    const bool new_structure = split_of(task.program.structure) == Split::kHeldOut;
    if (new_structure != wants_new_structure || keys.contains(task.program.key)) continue;
    task.tests = tests_of(random, task.program);
    if (task.tests.empty()) continue;
    keys.insert(task.program.key);
    tasks.push_back(std::move(task));
    draws = 0;
  }
  return tasks;
}

std::string_view verdict_name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kPassed:
      return "passed";
    case Verdict::kWrong:
      return "wrong";
    case Verdict::kFailed:
      return "failed";
    case Verdict::kNoProgram:
      return "no_program";
  }
  return "unknown";
}

Verdict judge(const Task& task, std::string_view completion) {
  const std::string text = task.program.prompt + std::string(completion);
  std::optional<Program> program;
  try {
    program = parse(first_definition(text));
  } catch (const Error&) {
    return Verdict::kNoProgram;
  }
  for (const TaskTest& test : task.tests) {
    const Outcome outcome = run(*program, "f", test.arguments);
    if (outcome.failure != Failure::kNone) return Verdict::kFailed;
    if (!(outcome.value == test.expected)) return Verdict::kWrong;
  }
  return Verdict::kPassed;
}

}  // namespace mneme::train::abacus
