#include "train/llama.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "train/gradient_check.h"
#include "train/tape/executor.h"
#include "train/test_batch.h"

namespace mneme::train {
namespace {

LlamaSizes tiny_sizes() {
  LlamaSizes sizes;
  sizes.vocabulary = 37;
  sizes.width = 24;
  sizes.n_layers = 2;
  sizes.n_heads = 4;
  sizes.n_kv_heads = 2;
  sizes.ffn_width = 40;
  sizes.context = 32;
  return sizes;
}

TEST(Llama, GradientsOfTheWholeModelMatchFiniteDifferences) {
  Ledger ledger;
  LlamaModel<double> model(ledger, tiny_sizes(), GemmFormat::kFull);
  model.initialise(3);
  // Larger weights than at the start of training, so that every path contributes visibly.
  for (auto& parameter : model.parameters().all()) {
    for (size_t i = 0; i < parameter.size(); ++i) parameter.value[i] *= parameter.role == Role::kNorm ? 1.0 : 12.0;
  }
  Executor<double> executor(ledger, model.program(), model.parameter_list());
  const RandomBatch data(37, {0, 5, 6, 23}, 11);
  const Batch batch = data.view();
  model.parameters().start_step();
  executor.train(batch);
  const double train_loss = model.loss().loss();
  executor.evaluate(batch);
  EXPECT_DOUBLE_EQ(train_loss, model.loss().loss());
  const auto loss = [&] {
    executor.evaluate(batch);
    return model.loss().loss();
  };
  for (auto& parameter : model.parameters().all()) {
    expect_gradient(parameter.value, parameter.grad, parameter.size(), loss, parameter.name, 1e-6, 6);
  }
}

TEST(Llama, RefusesSequencesAndIdsThatItHasNoRoomFor) {
  Ledger ledger;
  LlamaModel<float> model(ledger, tiny_sizes(), GemmFormat::kFull);
  Executor<float> executor(ledger, model.program(), model.parameter_list());
  const RandomBatch fits(37, {0, 32, 34}, 1), too_long(37, {0, 33, 34}, 1);
  executor.evaluate(fits.view());
  EXPECT_THROW(executor.evaluate(too_long.view()), Error);
  for (const int32_t id : {-1, 37}) {
    RandomBatch bad = fits;
    bad.tokens[3] = id;
    EXPECT_THROW(executor.evaluate(bad.view()), Error);
  }
}

TEST(Llama, RecomputedValuesGiveBitEqualGradients) {
  for (const GemmFormat format : {GemmFormat::kFull, GemmFormat::kBf16}) {
    Ledger ledger;
    LlamaModel<float> model(ledger, tiny_sizes(), format);
    model.initialise(5);
    const RandomBatch data(37, {0, 9, 32}, 2);
    std::vector<std::vector<float>> expected;
    size_t peak_keep = 0;
    for (const bool recompute : {false, true}) {
      for (ValueInfo& value : model.program().values()) {
        const bool anchor =
            value.name.ends_with("output") || value.name.ends_with("attended") || value.name.ends_with("lse");
        value.saving = recompute && !anchor ? Saving::kRecompute : Saving::kKeep;
      }
      Executor<float> executor(ledger, model.program(), model.parameter_list());
      model.parameters().start_step();
      executor.train(data.view());
      const Schedule& schedule = executor.prepare(32, true);
      if (!recompute) {
        peak_keep = schedule.storage.peak;
        for (auto& parameter : model.parameters().all()) {
          expected.emplace_back(parameter.grad, parameter.grad + parameter.size());
        }
        continue;
      }
      EXPECT_LT(schedule.storage.peak, peak_keep);
      size_t i = 0;
      for (auto& parameter : model.parameters().all()) {
        EXPECT_EQ(expected[i++], std::vector<float>(parameter.grad, parameter.grad + parameter.size()))
            << parameter.name;
      }
    }
  }
}

TEST(Llama, FloatAndBf16GradientsAgreeWithDouble) {
  Ledger ledger;
  LlamaModel<double> exact(ledger, tiny_sizes(), GemmFormat::kFull);
  exact.initialise(5);
  const RandomBatch data(37, {0, 9, 32}, 2);
  Executor<double> exact_run(ledger, exact.program(), exact.parameter_list());
  exact.parameters().start_step();
  exact_run.train(data.view());
  for (const GemmFormat format : {GemmFormat::kFull, GemmFormat::kBf16}) {
    LlamaModel<float> model(ledger, tiny_sizes(), format);
    model.initialise(5);
    Executor<float> executor(ledger, model.program(), model.parameter_list());
    model.parameters().start_step();
    executor.train(data.view());
    auto reference = exact.parameters().all().begin();
    for (const auto& parameter : model.parameters().all()) {
      double error = 0, size = 0;
      for (size_t i = 0; i < parameter.size(); ++i) {
        error += std::pow(parameter.grad[i] - reference->grad[i], 2);
        size += std::pow(reference->grad[i], 2);
      }
      // bf16 keeps 8 bits: a chain of a dozen rounded products stays within a few times 2^-8.
      EXPECT_LT(std::sqrt(error / size), format == GemmFormat::kFull ? 1e-5 : 0.03) << parameter.name;
      ++reference;
    }
  }
}

}  // namespace
}  // namespace mneme::train
