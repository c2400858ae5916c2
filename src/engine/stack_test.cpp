// Weights whose size changes while they are used: BitStack models in plans, under a limit that moves, and back again.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <thread>

#include "base/test_data.h"
#include "base/test_error.h"
#include "base/test_sanitizer.h"
#include "budget/resident.h"
#include "engine/scheduler.h"
#include "weights/gguf_test_bytes.h"
#include "weights/quantize.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

class StackTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TestFolder>();
    Ledger ledger;
    const auto source = open_source(source_path("models/pocket.gguf"), ledger);
    QuantizeOptions options;
    options.recipe = find_quant_recipe("BITSTACK");
    options.lossy = true;
    options.stack.blocks = 8;
    quantize_model(*source, path(), options, ledger);
  }
  static void TearDownTestSuite() { folder_.reset(); }
  static std::string path() { return folder_->file("stack.gguf"); }

  static PlanRequest plan_request(uint32_t n_sequences = 1) {
    PlanRequest request;
    request.context = 512;
    request.batch = 128;
    request.n_sequences = n_sequences;
    return request;
  }
  static std::vector<TokenId> prompt(size_t n, int seed = 0) {
    std::vector<TokenId> out;
    for (size_t i = 0; i < n; ++i)
      out.push_back(static_cast<TokenId>(300 + (i * 37 + static_cast<size_t>(seed) * 101) % 1500));
    return out;
  }
  static GenerationRequest request(std::vector<TokenId> prompt, uint32_t n) {
    GenerationRequest out;
    out.prompt = std::move(prompt);
    out.max_tokens = n;
    out.sampling.temperature = 0;
    out.sampling.ignore_end_of_generation = true;
    return out;
  }
  /// Logits of one token behind a state, which is as before afterwards.
  static std::vector<float> logits_behind(Engine& engine, SequenceState& state, TokenId token) {
    std::vector<float> out(engine.model().n_logits());
    const int64_t n = state.n_tokens();
    engine.run(state, {&token, 1}, [&](size_t, size_t, const float* hidden) {
      const size_t row = 0;
      engine.model().logits(hidden, {&row, 1}, engine.workspace(), out.data());
    });
    EXPECT_TRUE(state.truncate(n));
    return out;
  }

  static std::unique_ptr<TestFolder> folder_;
};

std::unique_ptr<TestFolder> StackTest::folder_;

TEST_F(StackTest, PlansTakeAsManyBlocksAsFit) {
  Ledger ledger;
  const ModelFile file = open_model(path(), ledger);
  const auto model = Model::build(file, ledger);
  const BlockStack& stack = *model->weights.stack;
  const auto plan = [&](uint64_t memory, const PlanRequest& given = plan_request()) {
    PlanRequest request = given;
    request.memory = memory;
    return make_plan(*model, request, {uint64_t{10} << 20});
  };
  const MemoryPlan all = plan(uint64_t{1} << 30);
  EXPECT_EQ(all.stack_blocks, stack.n_blocks());
  const uint64_t others = all.total() - all.stack_bytes, least = others + stack.bytes(stack.least_blocks());
  uint64_t largest = 0;
  for (size_t n = 1; n <= stack.n_blocks(); ++n) largest = std::max(largest, stack.bytes(n) - stack.bytes(n - 1));
  size_t before = 0, n_sizes = 0;
  for (uint64_t memory = least; memory < all.total(); memory += uint64_t{64} << 10) {
    const MemoryPlan some = plan(memory);
    EXPECT_LE(some.total(), memory);
    EXPECT_LT(memory - some.total(), largest);
    EXPECT_GE(some.stack_blocks, before);
    EXPECT_EQ(some.context, 512u);
    n_sizes += some.stack_blocks > before;
    before = some.stack_blocks;
  }
  EXPECT_GT(n_sizes, 10u);
  EXPECT_THAT(error_of([&] { plan(least - 1); }), HasSubstr("the limit is"));
  // Without a context asked for, the usual one comes before all blocks, and blocks before a longer context.
  PlanRequest open = plan_request();
  open.context.reset();
  const MemoryPlan tight = plan(all.total() + 3 * all.bytes(Tag::kKv) - all.stack_bytes / 2, open);
  EXPECT_EQ(tight.context, std::min<uint64_t>(2048, model->hyper.n_context));
  EXPECT_LT(tight.stack_blocks, stack.n_blocks());
}

TEST_F(StackTest, ASmallerMemoryLoadsLessAndAnswersDifferently) {
  Ledger full_ledger, small_ledger;
  const auto full = Engine::load(path(), plan_request(), full_ledger);
  const auto a = full->make_state();
  const std::vector<float> want = logits_behind(*full, *a, 400);
  PlanRequest small = plan_request();
  {
    Ledger ledger;  // the plan for the process as it is now, the other engine included
    const MemoryPlan plan = Engine::plan_only(path(), small, ledger)->plan();
    small.memory = plan.total() - plan.stack_bytes / 4;
  }
  const auto some = Engine::load(path(), small, small_ledger);
  EXPECT_LT(some->stack()->status().loaded, full->stack()->status().loaded);
  EXPECT_LE(small_ledger.peak(Tier::kRam), small.memory);
  const auto b = some->make_state();
  EXPECT_NE(want, logits_behind(*some, *b, 400));
}

TEST_F(StackTest, EightRequestsLiveThroughASqueeze) {
  Ledger ledger;
  const auto engine = Engine::load(path(), plan_request(8), ledger);
  const uint64_t roomy = ledger.limit(Tier::kRam), weights = ledger.used(Tier::kRam, Tag::kWeights);
  // Weights may take two fifths of what they are, the rest as much as planned.
  const uint64_t held = engine->stack()->status().bytes;
  const uint64_t tight = engine->plan().total() - engine->plan().stack_bytes + 2 * weights / 5 - (weights - held);
  Scheduler scheduler(*engine);
  std::vector<GenerationResult> results(8);
  size_t n_tokens = 0;
  uint64_t squeezed = 0;
  int64_t given_back = 0, taken_again = 0;  // resident bytes
  for (size_t i = 0; i < results.size(); ++i) {
    GenerationRequest r = request(prompt(60 + 10 * i, static_cast<int>(i)), 48);
    r.on_event = [&, i](const GenerationEvent& event) {
      if (event.finished != nullptr) results[i] = *event.finished;
      if (event.token == nullptr) return;
      if (++n_tokens == 100) {
        const auto before = static_cast<int64_t>(resident_bytes());
        EXPECT_EQ(engine->set_memory_limit(tight), 0u);
        given_back = before - static_cast<int64_t>(resident_bytes());
        squeezed = ledger.used(Tier::kRam, Tag::kWeights);
      } else if (n_tokens == 250) {
        EXPECT_LE(ledger.used(Tier::kRam), tight);
        const auto before = static_cast<int64_t>(resident_bytes());
        engine->set_memory_limit(roomy);
        taken_again = static_cast<int64_t>(resident_bytes()) - before;
      }
    };
    scheduler.submit(std::move(r));
  }
  scheduler.run();
  for (const GenerationResult& result : results) {
    EXPECT_EQ(result.reason, FinishReason::kLength) << result.error;
    EXPECT_EQ(result.tokens.size(), 48u);
  }
  EXPECT_LE(squeezed, 2 * weights / 5);
  EXPECT_GT(squeezed, 2 * weights / 5 - (uint64_t{64} << 10));
  EXPECT_EQ(ledger.used(Tier::kRam, Tag::kWeights), weights);
  EXPECT_EQ(engine->stack()->status().n_shrunk, 1u);
  EXPECT_EQ(engine->stack()->status().n_grown, 1u);
  if (kAddressSanitizer || kThreadSanitizer) return;
  const double moved = static_cast<double>(weights - squeezed);
  EXPECT_NEAR(static_cast<double>(given_back), moved, 0.05 * moved);
  EXPECT_NEAR(static_cast<double>(taken_again), moved, 0.05 * moved);
}

TEST_F(StackTest, AfterASqueezeTheWeightsAreTheSameToTheBit) {
  Ledger moved_ledger, still_ledger;
  const auto moved = Engine::load(path(), plan_request(), moved_ledger);
  const auto still = Engine::load(path(), plan_request(), still_ledger);
  const uint64_t roomy = moved_ledger.limit(Tier::kRam);
  GenerationRequest r = request(prompt(100), 10);
  r.conversation = std::make_shared<Conversation>();
  const auto conversation = r.conversation;
  moved->set_memory_limit(moved->plan().total() - moved->plan().stack_bytes / 2);
  EXPECT_LT(moved->stack()->status().loaded, still->stack()->status().loaded);
  generate(*moved, std::move(r));
  SequenceState& state = *conversation->state;
  EXPECT_NE(logits_behind(*moved, state, 500), logits_behind(*still, state, 500));
  moved->set_memory_limit(roomy);
  // The same keys and values, computed with fewer blocks, behind the same weights.
  for (TokenId token : {500, 501, 777})
    EXPECT_EQ(logits_behind(*moved, state, token), logits_behind(*still, state, token));
}

TEST_F(StackTest, AnotherThreadMayMoveTheLimitAtAnyTime) {
  Ledger ledger;
  const auto engine = Engine::load(path(), plan_request(4), ledger);
  const uint64_t roomy = ledger.limit(Tier::kRam), tight = engine->plan().total() - engine->plan().stack_bytes / 2;
  Scheduler scheduler(*engine);
  size_t n_finished = 0;
  for (int i = 0; i < 4; ++i) {
    GenerationRequest r = request(prompt(50, i), 60);
    r.on_event = [&](const GenerationEvent& event) {
      n_finished += event.finished != nullptr && event.finished->reason == FinishReason::kLength;
    };
    scheduler.submit(std::move(r));
  }
  std::atomic<bool> done{false};
  std::thread mover([&] {
    for (int i = 0; !done; ++i) {
      engine->set_memory_limit(i % 2 == 0 ? tight : roomy);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  scheduler.run();
  done = true;
  mover.join();
  EXPECT_EQ(n_finished, 4u);
  EXPECT_EQ(engine->set_memory_limit(roomy), 0u);
  EXPECT_EQ(engine->stack()->status().loaded, engine->stack()->n_blocks());
}

TEST_F(StackTest, KeysAndValuesBeyondThePlanPushBlocksOut) {
  Ledger ledger;
  const auto engine = Engine::load(path(), plan_request(), ledger);
  generate(*engine, request(prompt(400), 3));  // working memory of products is there from now on
  ledger.set_limit(Tier::kRam, ledger.used(Tier::kRam) + (uint64_t{64} << 10));
  const size_t before = engine->stack()->status().loaded;
  const GenerationResult result = generate(*engine, request(prompt(400), 20));
  EXPECT_EQ(result.reason, FinishReason::kLength);
  EXPECT_GT(engine->stack()->status().n_shrunk, 0u);
  EXPECT_LE(ledger.used(Tier::kRam), ledger.limit(Tier::kRam));
  // The request is over, and with nothing to do the scheduler brought the blocks back.
  EXPECT_EQ(engine->stack()->status().loaded, before);
}

}  // namespace
}  // namespace mneme
