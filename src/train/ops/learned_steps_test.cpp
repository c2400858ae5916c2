#include "train/ops/learned_steps.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/half.h"
#include "base/philox.h"
#include "tensor/bipolar.h"
#include "tensor/dtype.h"
#include "train/gradient_check.h"
#include "train/ops/cross_entropy.h"
#include "train/ops/row_ops.h"
#include "train/tape/executor.h"
#include "train/test_batch.h"

namespace mneme::train {
namespace {

constexpr size_t kGroup = bipolar::kGroup;

DType type_of(int bits) {
  return static_cast<DType>(static_cast<uint32_t>(DType::kBipolar1) + static_cast<uint32_t>(bits) - 1);
}

std::vector<float> normal(size_t n, uint64_t seed, float scale) {
  PhiloxStream random(seed);
  std::vector<float> out(n);
  for (float& v : out) v = scale * random.next_normal();
  return out;
}

TEST(LearnedSteps, RoundToTheNearestLevelAndAreStoredAsSeen) {
  constexpr size_t kRows = 3, kColumns = 2 * kGroup;
  const std::vector<float> w = normal(kRows * kColumns, 3, 0.05f);
  for (int bits = 1; bits <= bipolar::kMostBits; ++bits) {
    const auto top = static_cast<float>(bipolar::largest(bits));
    std::vector<float> steps(kRows * kColumns / kGroup), seen(w.size()), again(w.size()), stored(w.size());
    for (size_t g = 0; g < steps.size(); ++g) {
      // No half precision numbers; one of them negative, one far too small.
      steps[g] = (0.09f + 0.011f * static_cast<float>(g)) / top * (g == 1 ? -1.0f : 1.0f);
    }
    steps[2] = 0;
    round_to_steps(bits, w.data(), steps.data(), kRows, kColumns, seen.data());
    for (size_t i = 0; i < w.size(); ++i) {
      const float s = f16_to_f32(f32_to_f16(std::max(std::abs(steps[i / kGroup]), 0x1p-14f)));
      float best = top * s;
      for (float level = -top; level <= top; level += 2) {
        if (std::abs(w[i] - level * s) < std::abs(w[i] - best)) best = level * s;
      }
      ASSERT_NEAR(std::abs(w[i] - seen[i]), std::abs(w[i] - best), 1e-6f * s) << bits << " bits, " << i;
    }
    round_to_steps(bits, seen.data(), steps.data(), kRows, kColumns, again.data());
    EXPECT_EQ(again, seen);
    std::vector<std::byte> row(row_bytes(type_of(bits), kColumns));
    for (size_t r = 0; r < kRows; ++r) {
      encode_steps(bits, w.data() + r * kColumns, steps.data() + 2 * r, kColumns, row.data());
      dtype_info(type_of(bits)).decode(row.data(), stored.data() + r * kColumns, kColumns);
    }
    EXPECT_EQ(stored, seen) << bits << " bits";
  }
}

TEST(LearnedSteps, StartBelowTheErrorOfRoundingToNearest) {
  constexpr size_t kGroups = 256;
  const std::vector<float> w = normal(kGroups * kGroup, 4, 0.02f);
  for (const int bits : {1, 2, 3, 4, 8}) {
    std::vector<float> steps(kGroups), seen(w.size()), usual(w.size());
    std::vector<std::byte> blocks(row_bytes(type_of(bits), w.size()));
    start_steps(bits, w.data(), kGroups, kGroup, steps.data());
    round_to_steps(bits, w.data(), steps.data(), kGroups, kGroup, seen.data());
    dtype_info(type_of(bits)).encode(w.data(), nullptr, blocks.data(), w.size());
    dtype_info(type_of(bits)).decode(blocks.data(), usual.data(), w.size());
    double own = 0, rule = 0, norm = 0;
    for (size_t i = 0; i < w.size(); ++i) {
      own += std::pow(static_cast<double>(w[i] - seen[i]), 2);
      rule += std::pow(static_cast<double>(w[i] - usual[i]), 2);
      norm += std::pow(static_cast<double>(w[i]), 2);
    }
    EXPECT_LE(own, rule * (1 + 1e-3)) << bits;
    // The best zero-free grid for a Gaussian reaches 4.4, 9.25, 14.27, 19.38 dB; groups of 128 adapt to what they are.
    const double decibels = -10 * std::log10(own / norm);
    EXPECT_GT(decibels, bits == 2 ? 9.2 : bits == 4 ? 19.3 : 4.3) << bits;
  }
}

/// Embedding, a linear layer of two matrices and the loss, in f64. With `bits` the layer has learned steps.
struct Net {
  static constexpr size_t kVocabulary = 19, kColumns = 2 * kGroup, kRows = 5;

  explicit Net(int bits) {
    Parameter<double>& table = parameters.add("table", Role::kEmbedding, kVocabulary, kColumns);
    std::vector<Parameter<double>*> weights;
    for (const char* name : {"a", "b"}) weights.push_back(&parameters.add(name, Role::kAttention, kRows, kColumns));
    const ValueId x = program.value("x", kColumns), a = program.value("a", kRows), b = program.value("b", kRows);
    const ValueId y = program.value("y", kRows);
    program.add<Embedding<double>>({}, {x}, &table);
    WeightRounding rounding;
    if (bits > 0) rounding = {WeightRounding::Kind::kStored, type_of(bits), {}, kGroup, true};
    Linear<double>& linear =
        program.add<Linear<double>>({x}, {a, b}, weights, GemmFormat::kFull, OperandRounding{}, rounding);
    program.add<SwiGlu<double>>({a, b}, {y}, size_t{kRows});
    Parameter<double>& head = parameters.add("head", Role::kHead, kVocabulary, kRows);
    if (bits > 0) {
      for (size_t i = 0; i < 2; ++i) {
        linear.learn_steps(i, &parameters.add(i == 0 ? "a.steps" : "b.steps", Role::kStep, 1, 2 * kRows));
      }
      Parameter<double> wrong;
      wrong.rows = 1;
      wrong.columns = 3;
      EXPECT_THROW(linear.learn_steps(0, &wrong), Error);
    }
    loss = &program.add<CrossEntropy<double>>({y}, {}, &head, GemmFormat::kFull);
    parameters.allocate(ledger);
    for (Parameter<double>& p : parameters.all()) {
      PhiloxStream random(p.name.front(), p.size());
      const double scale = p.name == "table" ? 0.3 : 1.0;
      for (size_t i = 0; i < p.size(); ++i) p.value[i] = scale * static_cast<double>(random.next_normal());
      // Halves, so that no step is rounded; some negative.
      if (p.role != Role::kStep) continue;
      for (size_t i = 0; i < p.size(); ++i) {
        p.value[i] = (i % 3 == 1 ? -1.0 : 1.0) * (1.25 + 0.125 * static_cast<double>(i)) / bipolar::largest(bits);
        p.value[i] = static_cast<double>(f16_to_f32(f32_to_f16(static_cast<float>(p.value[i]))));
      }
    }
    // No weight so near the end of the grid that finite differences cross it.
    for (const char* name : {"a", "b"}) {
      if (bits == 0) break;
      const Parameter<double>&w = *parameters.find(name), &steps = *parameters.find(w.name + ".steps");
      for (size_t i = 0; i < w.size(); ++i) {
        const double end = std::abs(steps.value[i / kGroup]) * bipolar::largest(bits);
        if (std::abs(std::abs(w.value[i]) - end) < 0.02) w.value[i] *= 1.1;
      }
    }
    std::vector<Parameter<double>*> list;
    for (Parameter<double>& p : parameters.all()) list.push_back(&p);
    executor = std::make_unique<Executor<double>>(ledger, program, list);
  }

  Ledger ledger;
  ParameterSet<double> parameters;
  Program<double> program;
  CrossEntropy<double>* loss = nullptr;
  std::unique_ptr<Executor<double>> executor;
};

/// Backward gives the derivatives of the straight-through definition: Q(w) = s (clip(w / s, -P, P) + c), in which c,
/// what rounding adds, is a constant.
TEST(LearnedSteps, GradientsAreThoseOfTheStraightThroughDefinition) {
  const RandomBatch data(Net::kVocabulary, {0, 1, 4, 11}, 5);
  for (const int bits : {1, 2, 4}) {
    const auto top = static_cast<double>(bipolar::largest(bits));
    Net net(bits), plain(0);
    net.parameters.start_step();
    net.executor->train(data.view());
    for (const char* name : {"table", "head"}) {
      const Parameter<double>& from = *net.parameters.find(name);
      std::copy_n(from.value, from.size(), plain.parameters.find(name)->value);
    }
    std::vector<double> added[2];
    size_t beyond = 0;
    for (size_t m = 0; m < 2; ++m) {
      const Parameter<double>& w = *net.parameters.find(m == 0 ? "a" : "b");
      const Parameter<double>& steps = *net.parameters.find(w.name + ".steps");
      std::vector<double> seen(w.size());
      round_to_steps(bits, w.value, steps.value, w.rows, w.columns, seen.data());
      for (size_t i = 0; i < w.size(); ++i) {
        const double s = std::abs(steps.value[i / kGroup]);
        added[m].push_back(seen[i] / s - std::clamp(w.value[i] / s, -top, top));
        beyond += std::abs(w.value[i]) > top * s;
      }
    }
    EXPECT_GT(beyond, 20u) << "both cases occur";
    const auto loss = [&] {
      for (size_t m = 0; m < 2; ++m) {
        const Parameter<double>& w = *net.parameters.find(m == 0 ? "a" : "b");
        const Parameter<double>& steps = *net.parameters.find(w.name + ".steps");
        double* const out = plain.parameters.find(w.name)->value;
        for (size_t i = 0; i < w.size(); ++i) {
          const double s = std::abs(steps.value[i / kGroup]);
          out[i] = s * (std::clamp(w.value[i] / s, -top, top) + added[m][i]);
        }
      }
      plain.executor->evaluate(data.view());
      return plain.loss->loss();
    };
    EXPECT_NEAR(loss(), net.loss->loss(), 1e-12);
    const double balance = 1 / std::sqrt(static_cast<double>(kGroup) * top);
    std::vector<double> once;
    for (const char* name : {"a", "b", "a.steps", "b.steps"}) {
      Parameter<double>& p = *net.parameters.find(name);
      std::vector<double> gradient(p.grad, p.grad + p.size());
      once.insert(once.end(), gradient.begin(), gradient.end());
      if (p.role == Role::kStep) {
        for (double& g : gradient) g /= balance;
      }
      expect_gradient(p.value, gradient.data(), p.size(), loss, p.name, 1e-6, 40);
    }
    // A second micro-batch adds up.
    net.executor->train(data.view());
    size_t at = 0;
    for (const char* name : {"a", "b", "a.steps", "b.steps"}) {
      const Parameter<double>& p = *net.parameters.find(name);
      for (size_t i = 0; i < p.size(); ++i, ++at) ASSERT_NEAR(p.grad[i], 2 * once[at], 1e-12) << name;
    }
  }
}

}  // namespace
}  // namespace mneme::train
