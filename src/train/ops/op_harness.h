#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "train/gradient_check.h"
#include "train/ops/cross_entropy.h"
#include "train/ops/row_ops.h"
#include "train/tape/executor.h"
#include "train/test_batch.h"

namespace mneme::train {

/// For tests: embedding -> ops under test -> cross-entropy, in f64, so that gradients reach the inputs as rows of the
/// table.
class Harness {
 public:
  static constexpr size_t kVocabulary = 19;
  using Build = std::function<std::pair<ValueId, size_t>(Program<double>&, ParameterSet<double>&, ValueId)>;

  Harness(size_t columns, const Build& build) {
    Parameter<double>& table = parameters_.add("table", Role::kEmbedding, kVocabulary, columns);
    const ValueId x = program_.value("x", columns);
    program_.add<Embedding<double>>({}, {x}, &table);
    const auto [y, width] = build(program_, parameters_, x);
    Parameter<double>& head = parameters_.add("head", Role::kHead, kVocabulary, width);
    loss_ = &program_.add<CrossEntropy<double>>({y}, {}, &head, GemmFormat::kFull);
    parameters_.allocate(ledger_);
    PhiloxStream random(17);
    std::vector<Parameter<double>*> list;
    for (auto& parameter : parameters_.all()) {
      for (size_t i = 0; i < parameter.size(); ++i) parameter.value[i] = static_cast<double>(random.next_normal());
      list.push_back(&parameter);
    }
    executor_ = std::make_unique<Executor<double>>(ledger_, program_, list);
  }

  /// `more_loss` is what ops add to the loss of cross-entropy; parameters in `idle` must have a gradient of zeros.
  void check(
      const RandomBatch& data, size_t probes = 16, const std::function<double()>& more_loss = [] { return 0.0; },
      const std::set<std::string>& idle = {}) {
    parameters_.start_step();
    executor_->train(data.view());
    const double trained = loss_->loss() + more_loss();
    const auto loss = [&] {
      executor_->evaluate(data.view());
      return loss_->loss() + more_loss();
    };
    EXPECT_DOUBLE_EQ(trained, loss());
    for (auto& parameter : parameters_.all()) {
      if (idle.contains(parameter.name)) {
        EXPECT_TRUE(std::all_of(parameter.grad, parameter.grad + parameter.size(), [](double g) { return g == 0; }))
            << parameter.name;
        continue;
      }
      expect_gradient(parameter.value, parameter.grad, parameter.size(), loss, parameter.name, 1e-6, probes);
    }
  }
  ParameterSet<double>& parameters() { return parameters_; }

 private:
  Ledger ledger_;
  ParameterSet<double> parameters_;
  Program<double> program_;
  CrossEntropy<double>* loss_ = nullptr;
  std::unique_ptr<Executor<double>> executor_;
};

}  // namespace mneme::train
