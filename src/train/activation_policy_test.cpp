#include "train/activation_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "base/philox.h"
#include "train/ops/gemm.h"
#include "train/test_batch.h"

namespace mneme::train {
namespace {

using enum Saving;

LlamaSizes five_blocks() {
  LlamaSizes sizes;
  sizes.vocabulary = 61;
  sizes.width = 64;
  sizes.n_layers = 5;
  sizes.n_heads = 4;
  sizes.n_kv_heads = 2;
  sizes.ffn_width = 96;
  sizes.context = 512;
  return sizes;
}

constexpr size_t kTokens = 512;

/// Gradients of one micro-batch, all parameters one after the other.
std::vector<float> gradients_of(LlamaModel<float>& model, Executor<float>& executor, const RandomBatch& data) {
  model.parameters().start_step();
  executor.train(data.view());
  std::vector<float> all;
  for (const auto& p : model.parameters().all()) all.insert(all.end(), p.grad, p.grad + p.size());
  return all;
}

/// Whether oneDNN gives a row of a product the same bits whatever rows are beside it. With AVX2 it does not: it chooses
/// its kernel by the number of rows, and a part of the rows that is computed again differs in the last bits.
bool rows_stand_alone() {
  for (const auto& [n, k] : {std::pair<size_t, size_t>{64, 64}, {32, 64}, {96, 64}, {64, 96}}) {
    PhiloxStream random(3);
    std::vector<float> x(kTokens * k), w(n * k), whole(kTokens * n), part(kTokens * n);
    for (float& v : x) v = random.next_normal();
    for (float& v : w) v = random.next_normal();
    gemm({kTokens, n, k, false, true, k, k, n}, 1, x.data(), w.data(), 0, whole.data());
    for (const size_t first : {size_t{128}, size_t{256}, size_t{384}, size_t{154}}) {
      gemm({kTokens - first, n, k, false, true, k, k, n}, 1, x.data() + first * k, w.data(), 0, part.data());
      if (!std::equal(whole.begin() + static_cast<ptrdiff_t>(first * n), whole.end(), part.begin())) return false;
    }
  }
  return true;
}

/// How far gradients are apart, over the largest of them.
float difference(const std::vector<float>& a, const std::vector<float>& b) {
  float most = 0, largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::abs(a[i] - b[i]));
    largest = std::max(largest, std::abs(b[i]));
  }
  return most / largest;
}

/// Every choice, with parts of rows computed again, gives the same bits as keeping all, in the memory that was planned.
/// Where rows of a product depend on their number, parts give the same to rounding.
TEST(ActivationPolicy, AllChoicesGiveBitEqualGradients) {
  const bool rows_alone = rows_stand_alone();
  const RandomBatch data(61, {0, 100, 356, 512}, 2);
  for (const GemmFormat format : {GemmFormat::kFull, GemmFormat::kBf16}) {
    std::vector<float> expected;
    size_t keep_bytes = 0;
    for (const SavingChoice& choice : std::vector<SavingChoice>{{kKeep, kKeep, kKeep, 1},
                                                                {kKeep, kRecompute, kRecompute, 1},
                                                                {kKeep, kOffload, kOffload, 1},
                                                                {kOffload, kOffload, kOffload, 1},
                                                                {kOffload, kOffload, kOffload, 0.25},
                                                                {kOffload, kOffload, kOffload, 0.5},
                                                                {kOffload, kOffload, kOffload, 0.75},
                                                                {kKeep, kOffload, kKeep, 0.5},
                                                                {kKeep, kRecompute, kOffload, 0.5},
                                                                {kOffload, kRecompute, kRecompute, 1},
                                                                {kRecompute, kOffload, kRecompute, 0.3}}) {
      Ledger ledger;
      LlamaModel<float> model(ledger, five_blocks(), format);
      model.initialise(5);
      const SavingCost cost = cost_of(model, choice, kTokens);
      Executor<float> executor(ledger, model.program(), model.parameter_list());
      const std::vector<float> first = gradients_of(model, executor, data);
      EXPECT_EQ(ledger.used(Tier::kRam, Tag::kActivation), Buffer::reserved_bytes(cost.arena_bytes));
      EXPECT_EQ(ledger.used(Tier::kDisk, Tag::kActivation), cost.file_bytes);
      EXPECT_EQ(cost.file_bytes > 0, choice.offloads());
      if (expected.empty()) {
        expected = first;
        keep_bytes = cost.arena_bytes;
        continue;
      }
      const bool exact = choice.offloaded_share == 1 || rows_alone;
      if (exact) {
        EXPECT_TRUE(first == expected) << choice.description();
      } else {
        EXPECT_LT(difference(first, expected), format == GemmFormat::kFull ? 1e-5f : 1e-2f) << choice.description();
      }
      // What a step left behind in memory and file changes nothing in the next.
      EXPECT_TRUE(gradients_of(model, executor, data) == first) << choice.description();
      EXPECT_LT(cost.arena_bytes, keep_bytes) << choice.description();
    }
  }
}

/// A step takes nothing from the ledger: all of its memory was there before.
TEST(ActivationPolicy, StepsReserveNothing) {
  Ledger ledger;
  LlamaModel<float> model(ledger, five_blocks(), GemmFormat::kBf16);
  model.initialise(5);
  apply_saving(model, {kOffload, kOffload, kOffload, 0.5});
  Executor<float> executor(ledger, model.program(), model.parameter_list());
  executor.prepare(kTokens, true);
  executor.prepare(kTokens, false);
  size_t n_events = 0;
  const int listener = ledger.add_listener([&](const BudgetEvent&) { ++n_events; });
  const RandomBatch data(61, {0, 512}, 2);
  for (int i = 0; i < 2; ++i) {
    gradients_of(model, executor, data);
    executor.evaluate(data.view());
  }
  ledger.remove_listener(listener);
  EXPECT_EQ(n_events, 0u);
}

/// Two blocks' worth of anchors and one block's of the rest are in memory at a time, whatever the depth.
TEST(ActivationPolicy, MemoryOfOffloadingDoesNotGrowWithDepth) {
  size_t bytes[2], file[2];
  for (const size_t i : {0, 1}) {
    Ledger ledger;
    LlamaSizes sizes = five_blocks();
    sizes.n_layers = i == 0 ? 6 : 12;
    LlamaModel<float> model(ledger, sizes, GemmFormat::kFull);
    const SavingCost cost = cost_of(model, {kOffload, kRecompute, kRecompute, 1}, kTokens);
    bytes[i] = cost.arena_bytes;
    file[i] = cost.file_bytes;
    // Of all blocks but the last: its input, attention's output, and a log-sum a head; not the last block's input.
    const size_t anchors = (sizes.n_layers - 1) * kTokens * (64 + 4) * 4 + (sizes.n_layers - 1) * kTokens * 64 * 4;
    EXPECT_EQ(file[i], anchors);
  }
  EXPECT_LT(static_cast<double>(bytes[1]), 1.02 * static_cast<double>(bytes[0]));
  EXPECT_GT(file[1], 2 * file[0]);
}

TEST(ActivationPolicy, BalancedShareFollowsTheFormula) {
  Ledger ledger;
  LlamaModel<float> model(ledger, five_blocks(), GemmFormat::kFull);
  // One block: x 64, attended 64, lse 4 | attn_norm 64, q 64, k 32, v 32, middle 64, ffn_norm 64, gate, up, product 96.
  const double anchors = kTokens * 4.0 * (64 + 64 + 4), rest = kTokens * 4.0 * (5 * 64 - 64 + 2 * 32 + 3 * 96);
  TrainingSpeed speed{1e9, 0, 1e9};
  // Products: q and o 64 x 64, k and v 64 x 32, three of 64 x 96; attention: two products of half a square in 4 heads.
  const double linear = 2.0 * kTokens * 64 * (2 * 64 + 2 * 32 + 3 * 96);
  const double attention = model.program().ops()[5]->kind() == "attention" ? 2 * 2.0 * 64 * kTokens * (kTokens + 1) / 2 : 0;
  ASSERT_GT(attention, 0);
  const double seconds = (linear + attention) / speed.flops_per_s;
  for (const double share : {0.0, 0.3, 1.0}) {
    speed.write_per_s = (anchors + share * rest) / seconds;
    EXPECT_NEAR(balanced_share(model, kTokens, speed), share, 0.02);
  }
  speed.write_per_s = 1;
  EXPECT_EQ(balanced_share(model, kTokens, speed), 0);
  speed.write_per_s = 1e15;
  EXPECT_EQ(balanced_share(model, kTokens, speed), 1);
}

TEST(ActivationPolicy, ExtraSecondsCountWhatIsNotHidden) {
  const TrainingSpeed speed{100, 10, 20};
  EXPECT_DOUBLE_EQ(speed.extra_seconds({0, 0, 0, 1000, 0}), 0);
  EXPECT_DOUBLE_EQ(speed.extra_seconds({0, 0, 0, 1000, 300}), 3);
  EXPECT_DOUBLE_EQ(speed.extra_seconds({0, 0, 100, 1000, 0}), 0) << "10 s to write beside 10 s of forward";
  EXPECT_DOUBLE_EQ(speed.extra_seconds({0, 0, 500, 1000, 0}), 40 + 5);
}

/// The tighter the limit, the less is kept; each choice fits, and what fits none is refused with the need.
TEST(ActivationPolicy, FitsTheLimit) {
  const std::string folder = std::filesystem::temp_directory_path().string();
  size_t keep = 0, least = 0;
  {
    Ledger ledger;
    LlamaModel<float> model(ledger, five_blocks(), GemmFormat::kFull);
    keep = cost_of(model, {}, kTokens).arena_bytes;
    least = cost_of(model, {kOffload, kRecompute, kRecompute, 1}, kTokens).arena_bytes;
    EXPECT_EQ(fit_saving(ledger, model, kTokens, GradientLife::kStep, folder).description(), "drop cheap");
  }
  ASSERT_LT(least, keep);
  for (const double share : {1.0, 0.8, 0.5, 0.2, 0.0}) {
    Ledger ledger;
    LlamaModel<float> model(ledger, five_blocks(), GemmFormat::kFull);
    const size_t gradients = cost_of(model, {}, kTokens).gradient_bytes;
    const auto arena = least + static_cast<size_t>(share * static_cast<double>(keep - least));
    ledger.set_limit(Tier::kRam, ledger.used(Tier::kRam) + Buffer::reserved_bytes(arena) + Buffer::reserved_bytes(gradients));
    const SavingChoice choice = fit_saving(ledger, model, kTokens, GradientLife::kStep, folder);
    EXPECT_EQ(choice.description() == "keep all", share == 1.0);
    EXPECT_TRUE(share > 0 || choice.offloads());
    Executor<float> executor(ledger, model.program(), model.parameter_list());
    executor.prepare(kTokens, true);
    executor.prepare(kTokens, false);
  }
  Ledger ledger;
  LlamaModel<float> model(ledger, five_blocks(), GemmFormat::kFull);
  ledger.set_limit(Tier::kRam, ledger.used(Tier::kRam) + least);
  try {
    fit_saving(ledger, model, kTokens, GradientLife::kStep, folder);
    FAIL() << "nothing fits";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kOutOfBudget);
    EXPECT_THAT(e.what(), testing::HasSubstr("of 512 tokens"));
  }
}

}  // namespace
}  // namespace mneme::train
