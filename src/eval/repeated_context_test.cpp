#include "eval/repeated_context.h"

#include <gmock/gmock.h>

#include "base/test_data.h"
#include "base/test_error.h"
#include "engine/engine.h"
#include "eval/speed.h"

namespace mneme {
namespace {

std::unique_ptr<Engine> pocket(Ledger& ledger, const char* kv) {
  PlanRequest request;
  request.context = 2304;
  request.kv = KvPolicy::parse(kv);
  return Engine::load(source_path("models/pocket.gguf"), request, ledger);
}

TEST(RepeatedContext, HoldsWhatAComputedOneHolds) {
  for (const char* kv : {"f16", "think:0.5+kivi:2"}) {
    SCOPED_TRACE(kv);
    Ledger ledger;
    const auto engine = pocket(ledger, kv);
    const auto repeated = engine->make_state(), computed = engine->make_state();
    constexpr uint32_t kTokens = 2200;
    repeat_context(*engine, *repeated, kTokens);
    engine->run(*computed, random_tokens(engine->model(), kTokens), [](size_t, size_t, const float*) {});
    EXPECT_EQ(repeated->n_tokens(), kTokens);
    for (size_t i = 0; i < repeated->n_layers(); ++i) {
      ASSERT_EQ(repeated->layer(i)->n_tokens(), kTokens);
      EXPECT_EQ(repeated->layer(i)->bytes(), computed->layer(i)->bytes());
      EXPECT_EQ(repeated->layer(i)->sealed_pages().end, computed->layer(i)->sealed_pages().end);
    }
    // It goes on from there, and back to there.
    engine->run(*repeated, random_tokens(engine->model(), 20), [](size_t, size_t, const float*) {});
    EXPECT_TRUE(repeated->truncate(kTokens));
  }
}

TEST(RepeatedContext, RefusesStatesWithoutPages) {
  Ledger ledger;
  const auto engine = pocket(ledger, "h2o");
  const auto state = engine->make_state();
  EXPECT_THAT(error_of([&] { repeat_context(*engine, *state, 2200); }), ::testing::HasSubstr("compute the context"));
}

TEST(RepeatedContext, MeasuresSpeed) {
  Ledger ledger;
  const auto engine = pocket(ledger, "kivi:2");
  SpeedOptions options;
  options.n_tokens = 2;
  options.depth = 2200;
  options.repetitions = 1;
  options.repeat_page = true;
  EXPECT_GT(decode_speed(*engine, options).tokens_per_second.median, 0);
}

}  // namespace
}  // namespace mneme
