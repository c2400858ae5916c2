#include "train/abacus/task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/test_error.h"
#include "train/data/program_text.h"

namespace mneme::train {
namespace {

using abacus::Verdict;
using ::testing::HasSubstr;

TEST(AbacusTask, ProgramsOfBothSplitsRunAndNeverMeet) {
  std::set<std::string> keys, structures;
  for (const Split split : {Split::kTrain, Split::kHeldOut}) {
    PhiloxStream random(5);
    for (int i = 0; i < 2000; ++i) {
      const abacus::DescribedProgram made = abacus::make_program(random, split);
      ASSERT_NO_THROW(abacus::parse(made.text())) << made.text();
      EXPECT_EQ(abacus::first_definition(made.text()).size() + 1, made.text().size()) << made.text();
      if (split == Split::kTrain) {
        keys.insert(made.key);
        structures.insert(made.structure);
      } else {
        EXPECT_FALSE(keys.contains(made.key)) << made.key;
      }
    }
  }
  EXPECT_GT(structures.size(), 500u);
}

/// What the words mean, in other code.
TEST(AbacusTask, SolutionsDoWhatTheKeySays) {
  const std::vector<int64_t> list = {7, -4, 10, 3, 12, -9, 6};
  PhiloxStream random(6);
  int seen = 0;
  for (int i = 0; i < 20000; ++i) {
    const abacus::DescribedProgram made = abacus::make_program(random, Split::kTrain);
    const auto result = [&](std::vector<abacus::Value> arguments) {
      return abacus::run(abacus::parse(made.text()), "f", arguments).value;
    };
    if (made.key == "xs keep-odd map-square sum") {
      EXPECT_EQ(result({abacus::Value::of(list)}).number, 49 + 9 + 81) << made.text();
      ++seen;
    } else if (made.key == "xs take 3 map-negate") {
      EXPECT_EQ(result({abacus::Value::of(list)}), abacus::Value::of({-7, 4, -10})) << made.text();
      ++seen;
    } else if (made.key == "xs drop-multiples 3 len") {
      EXPECT_EQ(result({abacus::Value::of(list)}).number, 3) << made.text();
      ++seen;
    } else if (made.key == "larger then-times 3") {
      EXPECT_EQ(result({abacus::Value::of(4), abacus::Value::of(-5)}).number, 12) << made.text();
      ++seen;
    }
  }
  EXPECT_GT(seen, 3);
}

TEST(AbacusTask, TasksAreDistinctAndSolvable) {
  const std::vector<abacus::Task> tasks = abacus::make_tasks(200, 7);
  std::set<std::string> keys;
  size_t new_structures = 0;
  for (const abacus::Task& task : tasks) {
    keys.insert(task.program.key);
    new_structures += split_of(task.program.structure) == Split::kHeldOut ? 1 : 0;
    EXPECT_EQ(abacus::split_of_program(task.program.structure, task.program.key), Split::kHeldOut);
    EXPECT_EQ(abacus::judge(task, task.program.solution + "\n\n; and more (("), Verdict::kPassed) << task.program.key;
    EXPECT_EQ(abacus::judge(task, ""), Verdict::kNoProgram);
    EXPECT_NE(abacus::judge(task, " 1)"), Verdict::kPassed) << task.program.key;
    EXPECT_EQ(abacus::judge(task, " (f))"), Verdict::kNoProgram) << "called without arguments";
  }
  EXPECT_EQ(keys.size(), tasks.size());
  EXPECT_EQ(new_structures, tasks.size() / 2);
  EXPECT_EQ(abacus::make_tasks(50, 7)[49].program.text(), tasks[49].program.text()) << "the seed decides";
  EXPECT_THROW(abacus::make_tasks(abacus::kMostTasks + 1, 7), Error);
}

TEST(AbacusTask, TheSearchForTasksEnds) {
  const abacus::Task task = abacus::make_tasks(1, 7).front();
  size_t n = 0;
  const auto same = [&](PhiloxStream&) {
    ++n;
    return task.program;
  };
  EXPECT_EQ(abacus::make_tasks(1, 7, same).size(), 1u);
  n = 0;
  EXPECT_THAT(error_of([&] { abacus::make_tasks(3, 7, same); }),
              HasSubstr("expected 3 different tasks, found 1 and in 100000 more programs none with only numbers"));
  EXPECT_EQ(n, 1 + abacus::kMostDraws);
  const auto trained = [](PhiloxStream& random) { return abacus::make_program(random, Split::kTrain); };
  EXPECT_THAT(error_of([&] { abacus::make_tasks(2, 7, trained); }), HasSubstr("none with a structure that training"));
}

TEST(AbacusTask, OtherSolutionsRarelyPass) {
  const std::vector<abacus::Task> tasks = abacus::make_tasks(60, 8);
  size_t passed = 0, n = 0;
  for (const abacus::Task& a : tasks) {
    for (const abacus::Task& b : tasks) {
      if (&a == &b) continue;
      ++n;
      passed += abacus::judge(a, b.program.solution) == Verdict::kPassed ? 1 : 0;
    }
  }
  EXPECT_LT(static_cast<double>(passed) / static_cast<double>(n), 0.005) << passed << " of " << n;
}

TEST(AbacusTask, WhatNeverEndsFails) {
  const std::vector<abacus::Task> tasks = abacus::make_tasks(20, 9);
  for (const abacus::Task& task : tasks) {
    const std::string& prompt = task.program.prompt;
    const std::string parameters = prompt.substr(prompt.rfind('(') + 1, prompt.size() - prompt.rfind('(') - 2);
    EXPECT_EQ(abacus::judge(task, " (f " + parameters + "))"), Verdict::kFailed);
  }
}

TEST(ProgramText, OnlySolutionsWeighAsAnswers) {
  std::vector<std::string> sample;
  PhiloxStream texts(1);
  for (int i = 0; i < 300; ++i) sample.push_back(program_file(texts, Split::kTrain));
  const TrainTokenizer tokenizer = TrainTokenizer::train(sample, 400);
  LossWeights weights;
  weights.answer = 1.0f;
  weights.text = 0.25f;
  PhiloxStream random(2);
  const WeightedTokens sequence = encode_programs(tokenizer, random, Split::kTrain, weights);
  ASSERT_EQ(sequence.ids.size(), sequence.weights.size());
  std::vector<int32_t> answers;
  for (size_t i = 1; i + 1 < sequence.ids.size(); ++i) {
    if (sequence.weights[i] == 1.0f) answers.push_back(sequence.ids[i]);
  }
  PhiloxStream again(2);
  const std::string text = program_file(again, Split::kTrain);
  std::vector<int32_t> inner(sequence.ids.begin() + 1, sequence.ids.end() - 1);
  EXPECT_EQ(tokenizer.decode(inner), text);
  const std::string code = tokenizer.decode(answers);
  // All of each solution and none of the words; a piece may join the end of a line and what begins the next.
  constexpr size_t kMostJoined = 4;
  size_t n_chars = 0;
  for (size_t at = 0; (at = text.find("(def f (", at)) != std::string::npos;) {
    const size_t begin = text.find(')', at) + 1, end = text.find('\n', at);
    EXPECT_NE(code.find(text.substr(begin, end - begin)), std::string::npos) << code;
    n_chars += end + kMostJoined - begin;
    at = end;
  }
  EXPECT_GT(n_chars, 0u);
  EXPECT_LE(code.size(), n_chars) << code;
  EXPECT_EQ(code.find("def"), std::string::npos) << code;
  EXPECT_EQ(sequence.weights[0], 0.0f);
}

}  // namespace
}  // namespace mneme::train
