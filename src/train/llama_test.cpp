#include "train/llama.h"

#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "train/gradient_check.h"
#include "train/ops/vector_math.h"
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

/// Loss and gradients of one step with the given operands rounded.
struct RoundedStep {
  double loss;
  std::map<std::string, std::vector<float>> gradients;

  explicit RoundedStep(uint32_t operands) {
    Ledger ledger;
    LlamaOptions options;
    options.format = GemmFormat::kBf16;
    options.rounding = {{2, 1}, 16, operands};
    LlamaModel<float> model(ledger, tiny_sizes(), options);
    model.initialise(5);
    Executor<float> executor(ledger, model.program(), model.parameter_list());
    model.parameters().start_step();
    executor.train(RandomBatch(37, {0, 9, 32}, 2).view());
    loss = model.loss().loss();
    for (const auto& p : model.parameters().all()) gradients[p.name].assign(p.grad, p.grad + p.size());
  }
};

/// Each operand changes what its product goes into, and nothing that doesn't follow from it.
TEST(Llama, RoundedOperandsChangeTheirOwnProducts) {
  const auto bit = [](ProductOperand operand) { return 1u << static_cast<uint32_t>(operand); };
  const RoundedStep plain(0);
  const std::string last = "blk.1.ffn_down.weight", head_side = "output_norm.weight", deep = "token_embd.weight";
  for (const ProductOperand operand : {ProductOperand::kXForward, ProductOperand::kWForward}) {
    const RoundedStep step(bit(operand));
    EXPECT_NE(step.loss, plain.loss);
    EXPECT_NEAR(step.loss, plain.loss, 0.1);
  }
  // The gradient of x reaches everything below the layer, that of the weights nothing else.
  for (const ProductOperand operand : {ProductOperand::kDyForDx, ProductOperand::kWForDx}) {
    const RoundedStep step(bit(operand));
    EXPECT_EQ(step.loss, plain.loss);
    EXPECT_EQ(step.gradients.at(last), plain.gradients.at(last));
    EXPECT_NE(step.gradients.at("blk.1.ffn_gate.weight"), plain.gradients.at("blk.1.ffn_gate.weight"));
    EXPECT_NE(step.gradients.at(deep), plain.gradients.at(deep));
  }
  for (const ProductOperand operand : {ProductOperand::kDyForDw, ProductOperand::kXForDw}) {
    const RoundedStep step(bit(operand));
    EXPECT_EQ(step.loss, plain.loss);
    EXPECT_EQ(step.gradients.at(deep), plain.gradients.at(deep));
    EXPECT_EQ(step.gradients.at(head_side), plain.gradients.at(head_side));
    EXPECT_NE(step.gradients.at(last), plain.gradients.at(last));
  }
}

/// What to_operand writes is the matrix rounded in runs along the summed dimension, then taken to bfloat16.
TEST(OperandRounding, RunsLieAlongTheSummedDimension) {
  constexpr size_t kRows = 45, kColumns = 33;
  PhiloxStream random(8);
  std::vector<float> x(kRows * kColumns);
  for (float& v : x) v = random.next_normal();
  for (size_t i = 0; i < kProductOperands; ++i) {
    const auto operand = static_cast<ProductOperand>(i);
    const bool down =
        operand == ProductOperand::kWForDx || operand == ProductOperand::kDyForDw || operand == ProductOperand::kXForDw;
    for (const size_t block : {size_t{16}, size_t{1000}}) {
      std::vector<uint16_t> found(x.size()), expected(x.size());
      to_operand({{2, 1}, block, 1u << i}, operand, x.data(), kRows, kColumns, found.data());
      std::vector<float> rounded = x;
      round_blocks({2, 1}, block, down, rounded, kRows, kColumns);
      to_bf16(rounded.data(), rounded.size(), expected.data());
      EXPECT_EQ(found, expected) << i << " " << block;
      to_bf16(x.data(), x.size(), expected.data());
      to_operand({{2, 1}, block, 0}, operand, x.data(), kRows, kColumns, found.data());
      EXPECT_EQ(found, expected);
    }
  }
}

}  // namespace
}  // namespace mneme::train
