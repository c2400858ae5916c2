#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "eval/hessian_trace.h"
#include "train/test_batch.h"

namespace mneme {

/// A tiny llama with large weights on a batch, whose Hessian can be had weight by weight: for a claim and for tests.
template <typename T>
struct TraceExample {
  TraceExample() : model(ledger, sizes(), train::GemmFormat::kFull), data(13, {0, 7, 20}, 3) {
    model.initialise(3);
    for (auto& p : model.parameters().all()) {
      for (size_t i = 0; i < p.size(); ++i) p.value[i] *= p.role == train::Role::kNorm ? T{1} : T{12};
    }
    executor = std::make_unique<train::Executor<T>>(ledger, model.program(), model.parameter_list());
  }

  static train::LlamaSizes sizes() {
    train::LlamaSizes sizes;
    sizes.vocabulary = 13;
    sizes.width = 8;
    sizes.n_layers = 2;
    sizes.n_heads = 2;
    sizes.n_kv_heads = 1;
    sizes.ffn_width = 12;
    sizes.context = 16;
    return sizes;
  }
  void find_gradients() {
    model.parameters().start_step();
    executor->train(data.view());
  }
  /// Descends until most of the loss is gone: there the Hessian is nearly positive, as that of a trained model.
  void descend(size_t n_steps, T rate) {
    for (size_t step = 0; step < n_steps; ++step) {
      find_gradients();
      for (auto& p : model.parameters().all()) {
        for (size_t i = 0; i < p.size(); ++i) p.value[i] -= rate * p.grad[i];
      }
    }
  }
  std::map<std::string, TraceEstimate> estimate(const TraceOptions& options) {
    const std::vector<train::Batch> batches = {data.view()};
    return estimate_traces<T>(ledger, model, *executor, batches, options, [](size_t, size_t) {});
  }
  /// Trace of the block of a matrix, one finite difference of gradients a weight.
  double exact_trace(train::Parameter<T>& p) {
    constexpr T kStep = 1e-5;
    double sum = 0;
    for (size_t i = 0; i < p.size(); ++i) {
      const T saved = p.value[i];
      for (const T side : {T{1}, T{-1}}) {
        p.value[i] = saved + side * kStep;
        find_gradients();
        sum += static_cast<double>(side * p.grad[i] / (2 * kStep));
      }
      p.value[i] = saved;
    }
    return sum;
  }

  Ledger ledger;
  train::LlamaModel<T> model;
  train::RandomBatch data;
  std::unique_ptr<train::Executor<T>> executor;
};

}  // namespace mneme
