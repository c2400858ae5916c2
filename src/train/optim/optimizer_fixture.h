#pragma once

#include <vector>

#include "base/philox.h"
#include "train/optim/optimizer.h"

namespace mneme::train {

/// For tests: a matrix, a vector and an embedding with random values and room for gradients.
struct OptimizerFixture {
  Ledger ledger;
  ParameterSet<float> set;
  ParameterList list;
  std::vector<std::vector<float>> gradients;

  explicit OptimizerFixture(size_t rows = 12, size_t columns = 20) {
    set.add("m", Role::kFeedForward, rows, columns);
    set.add("v", Role::kNorm, 1, 7);
    set.add("e", Role::kEmbedding, 5, 4);
    set.allocate(ledger);
    PhiloxStream random(1);
    for (auto& p : set.all()) {
      for (size_t i = 0; i < p.size(); ++i) p.value[i] = random.next_normal();
      p.grad = gradients.emplace_back(p.size()).data();
      list.push_back(&p);
    }
  }

  void set_gradients(uint64_t seed) {
    PhiloxStream random(seed);
    for (auto* p : list) {
      for (size_t i = 0; i < p->size(); ++i) p->grad[i] = random.next_normal();
    }
  }

  std::vector<double> values() const {
    std::vector<double> all;
    for (const auto* p : list) all.insert(all.end(), p->value, p->value + p->size());
    return all;
  }
};

}  // namespace mneme::train
