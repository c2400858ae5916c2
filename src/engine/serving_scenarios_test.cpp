// What users of servers lose time and answers to, as tests of the engine: overlong prompts, alternating prompts, edits
// in the middle, requests that do not fit together, tenants. (Resuming, killing and disk tiers:
// session/session_test.cpp, context/page_disk_test.cpp and tests/cli_session_test.cpp.)

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/test_data.h"
#include "base/test_error.h"
#include "base/test_sanitizer.h"
#include "budget/resident.h"
#include "engine/scheduler.h"
#include "weights/model_fingerprint.h"
#include "weights/gguf_test_bytes.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

class ServingScenarios : public testing::Test {
 protected:
  void load(uint64_t context, uint32_t n_sequences = 1) {
    PlanRequest request;
    request.context = context;
    request.batch = 128;
    request.n_sequences = n_sequences;
    engine_ = Engine::load(source_path("models/pocket.gguf"), request, ledger_);
  }
  std::unique_ptr<PrefixCache> make_cache() {
    return std::make_unique<PrefixCache>(ledger_, model_fingerprint(engine_->file()) + "/f16", PrefixCache::Options());
  }
  /// Tokens without a meaning, others for each seed.
  static std::vector<TokenId> prompt(size_t n, int seed = 0) {
    std::vector<TokenId> out;
    for (size_t i = 0; i < n; ++i)
      out.push_back(static_cast<TokenId>(300 + (i * 37 + static_cast<size_t>(seed) * 101) % 1500));
    return out;
  }
  static GenerationRequest request(std::vector<TokenId> prompt, uint32_t n, const std::string& tenant = "") {
    GenerationRequest out;
    out.prompt = std::move(prompt);
    out.max_tokens = n;
    out.sampling.temperature = 0;
    out.sampling.ignore_end_of_generation = true;
    out.n_logprobs = 0;
    out.cache.tenant = tenant;
    return out;
  }
  GenerationResult run(GenerationRequest request, PrefixCache* cache = nullptr) {
    return generate(*engine_, std::move(request), cache);
  }
  static std::vector<float> logprobs(const GenerationResult& result) {
    std::vector<float> out;
    for (const GeneratedToken& token : result.tokens) out.push_back(token.logprob);
    return out;
  }

  Ledger ledger_;
  std::unique_ptr<Engine> engine_;
};

// R1: a prompt that is longer than the context is refused with the numbers, and nothing of it is answered.
TEST_F(ServingScenarios, OverlongPromptsAreRefusedWithNumbers) {
  load(512);
  EXPECT_THAT(error_of([&] { run(request(prompt(2600), 5)); }),
              HasSubstr("the context holds 512 tokens, but 2605 are needed"));
}

// R2: alternating prompts for a long time: the ledger's limit always holds, and the process stops growing.
TEST_F(ServingScenarios, AlternatingPromptsStayInTheBudget) {
  load(1024);
  const uint64_t limit = ledger_.used(Tier::kRam) + 2 * engine_->model().state_bytes(engine_->state_options(), 1024);
  ledger_.set_limit(Tier::kRam, limit);
  uint64_t most = 0;
  const int listener = ledger_.add_listener([&](const BudgetEvent& event) {
    if (event.tier == Tier::kRam) most = std::max(most, event.used_after);
  });
  const auto cache = make_cache();
  uint64_t resident = 0;
  for (int i = 0; i < 24; ++i) {
    const GenerationResult result = run(request(prompt(600, i % 2 == 0 ? 0 : i % 5), 3), cache.get());
    EXPECT_EQ(result.tokens.size(), 3u);
    if (i == 11) resident = resident_bytes();
  }
  EXPECT_LE(most, limit);
  EXPECT_GT(cache->stats().evicted_blocks, 0u);
  EXPECT_GT(cache->stats().reused_tokens, 0u);
  if (!kAddressSanitizer && !kThreadSanitizer) {
    EXPECT_LE(resident_bytes(), resident + resident / 50);
  }
  ledger_.remove_listener(listener);
}

// R4: four requests that together exceed the memory: each ends well, or is refused alone.
TEST_F(ServingScenarios, RequestsThatDoNotFitTogetherTakeTurns) {
  load(1024, 4);
  const uint64_t one = engine_->model().state_bytes(engine_->state_options(), 800);
  const auto cache = make_cache();
  ledger_.set_limit(Tier::kRam, ledger_.used(Tier::kRam) + 2 * one + one / 2);
  Scheduler scheduler(*engine_, cache.get());
  std::vector<GenerationResult> results(5);
  for (int i = 0; i < 5; ++i) {
    GenerationRequest r = request(prompt(i == 4 ? 100 : 700, i), 100);
    if (i == 4) r.max_tokens = 900;
    r.on_event = [&results, i](const GenerationEvent& event) {
      if (event.finished != nullptr) results[static_cast<size_t>(i)] = *event.finished;
    };
    scheduler.submit(std::move(r));
  }
  scheduler.run();
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(results[i].reason, FinishReason::kLength) << i << ": " << results[i].error;
    EXPECT_EQ(results[i].tokens.size(), i == 4 ? 900u : 100u);
  }
  ledger_.set_limit(Tier::kRam, ledger_.used(Tier::kRam) - cache->bytes() + one / 2);
  EXPECT_THAT(error_of([&] { run(request(prompt(700), 100)); }), HasSubstr("context of a request needs"));
}

// R5: an edit in the middle of a long prompt costs what comes behind it. The answer is that of a computation from
// scratch, to the bit.
TEST_F(ServingScenarios, EditsInTheMiddleCostOnlyTheTail) {
  load(1024);
  const auto cache = make_cache();
  run(request(prompt(900), 2), cache.get());
  std::vector<TokenId> edited = prompt(900);
  edited[600] = 77;
  const GenerationResult got = run(request(edited, 20), cache.get());
  EXPECT_EQ(got.n_cached, 512u);
  EXPECT_EQ(got.n_reused, 512u);
  EXPECT_EQ(got.match_stop, MatchStop::kTokensDiffer);
  EXPECT_EQ(got.n_equal, 600u);
  const GenerationResult want = run(request(edited, 20));
  EXPECT_EQ(want.n_reused, 0u);
  EXPECT_EQ(got.text, want.text);
  EXPECT_EQ(logprobs(got), logprobs(want));
  const GenerationResult again = run(request(prompt(900), 20), cache.get());
  EXPECT_EQ(again.n_cached, 768u);
  EXPECT_EQ(again.match_stop, MatchStop::kPromptEnds);
}

// R6: what one tenant has used is nothing another can see: neither tokens nor the reason.
TEST_F(ServingScenarios, TenantsDoNotSeeEachOther) {
  load(1024);
  const auto cache = make_cache();
  run(request(prompt(600), 1, "a"), cache.get());
  const GenerationResult other = run(request(prompt(600), 1, "b"), cache.get());
  EXPECT_EQ(other.n_cached, 0u);
  EXPECT_EQ(other.match_stop, MatchStop::kNothingCached);
  EXPECT_EQ(other.n_equal, 0u);
  EXPECT_EQ(run(request(prompt(600), 1, "a"), cache.get()).n_cached, 512u);
}

// A sequence that is still running lends what it has read: many answers to one long prompt compute it once.
TEST_F(ServingScenarios, RunningSequencesAreForked) {
  load(1024, 3);
  const auto cache = make_cache();
  Scheduler scheduler(*engine_, cache.get());
  std::vector<GenerationResult> results(3);
  const auto submit = [&](size_t i) {
    GenerationRequest r = request(prompt(600), 300);
    r.sampling.temperature = 1;
    r.sampling.seed = i;
    r.on_event = [&results, i](const GenerationEvent& event) {
      if (event.finished != nullptr) results[i] = *event.finished;
    };
    scheduler.submit(std::move(r));
  };
  submit(0);
  for (int i = 0; i < 20; ++i) scheduler.step();
  submit(1);
  submit(2);
  scheduler.run();
  EXPECT_EQ(results[0].n_cached, 0u);
  EXPECT_EQ(results[1].n_cached, 512u);
  EXPECT_EQ(results[2].n_cached, 512u);
  GenerationRequest alone = request(prompt(600), 300);
  alone.sampling.temperature = 1;
  alone.sampling.seed = 2;
  EXPECT_EQ(run(std::move(alone)).text, results[2].text);
}

// R9: generating ends at max_tokens, and at the end of the context, also when the conversation is continued.
TEST_F(ServingScenarios, GenerationEndsWhereItWasTold) {
  load(512);
  GenerationRequest first = request(prompt(400), 50);
  first.conversation = std::make_shared<Conversation>();
  const auto conversation = first.conversation;
  EXPECT_EQ(run(std::move(first)).tokens.size(), 50u);
  GenerationRequest second = request(conversation->tokens, 0);
  second.conversation = conversation;
  const GenerationResult rest = run(std::move(second));
  EXPECT_EQ(rest.reason, FinishReason::kContext);
  EXPECT_EQ(rest.n_prompt + rest.tokens.size(), 512u);
}

}  // namespace
}  // namespace mneme
