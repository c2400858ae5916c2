#include "eval/repeated_context.h"

#include <gmock/gmock.h>

#include <string>

#include "base/test_data.h"
#include "base/test_error.h"
#include "engine/engine.h"
#include "eval/speed.h"

namespace mneme {
namespace {

std::unique_ptr<Engine> pocket(Ledger& ledger, const char* kv, uint32_t n_sequences = 1) {
  PlanRequest request;
  request.n_sequences = n_sequences;
  request.context = 2400;
  request.kv = KvPolicy::parse(kv);
  return Engine::load(source_path("models/pocket.gguf"), request, ledger);
}

TEST(RepeatedContext, HoldsWhatAComputedOneHolds) {
  for (const char* kv : {"f16", "think:0.5+kivi:2"}) {
    Ledger ledger;
    const auto engine = pocket(ledger, kv);
    for (const uint32_t n_tokens : {2200u, 2304u}) {  // 2304: whole pages, whose end is still in the tail of kivi
      SCOPED_TRACE(testing::Message() << kv << ", " << n_tokens << " tokens");
      const auto repeated = engine->make_state(), computed = engine->make_state();
      repeat_context(*engine, *repeated, n_tokens);
      engine->run(*computed, random_tokens(engine->model(), n_tokens), [](size_t, size_t, const float*) {});
      EXPECT_EQ(repeated->n_tokens(), n_tokens);
      for (size_t i = 0; i < repeated->n_layers(); ++i) {
        ASSERT_EQ(repeated->layer(i)->n_tokens(), n_tokens);
        EXPECT_EQ(repeated->layer(i)->bytes(), computed->layer(i)->bytes());
        EXPECT_EQ(repeated->layer(i)->sealed_pages().end, computed->layer(i)->sealed_pages().end);
      }
      // It goes on from there, and back to there.
      engine->run(*repeated, random_tokens(engine->model(), 20), [](size_t, size_t, const float*) {});
      EXPECT_TRUE(repeated->truncate(n_tokens));
    }
  }
}

/// Logits of one token behind a state.
std::vector<float> logits_behind(Engine& engine, SequenceState& state) {
  std::vector<float> logits(engine.model().n_logits());
  const TokenId token = 7;
  engine.run(state, {&token, 1}, [&](size_t, size_t, const float* hidden) {
    const size_t row = 0;
    engine.model().logits(hidden, {&row, 1}, engine.workspace(), logits.data());
  });
  return logits;
}

TEST(RepeatedContext, CopiesAnswerAsFilledOnesDoAndOwnTheirMemory) {
  for (const char* kv : {"f16", "kivi:2", "minicache+kivi:4", "h2o", "window:recent=512"}) {
    SCOPED_TRACE(kv);
    Ledger ledger;
    const auto engine = pocket(ledger, kv);
    const bool paged = std::string(kv) == "f16" || std::string(kv) == "kivi:2";
    const uint32_t n_tokens = 2200 + 100;  // in the middle of a page
    const auto fill = [&](SequenceState& state) {
      if (paged) return repeat_context(*engine, state, n_tokens);
      engine->run(state, random_tokens(engine->model(), 700), [](size_t, size_t, const float*) {});
    };
    const auto first = engine->make_state(), filled = engine->make_state();
    fill(*first);
    fill(*filled);
    const uint64_t before = ledger.used(Tier::kRam, Tag::kKv);
    const auto copy = separate_copy(*engine, *first);
    EXPECT_EQ(copy->n_tokens(), filled->n_tokens());
    EXPECT_EQ(ledger.used(Tier::kRam, Tag::kKv) - before, first->bytes()) << "no page is shared";
    EXPECT_EQ(copy->bytes(), filled->bytes());
    const std::vector<float> wanted = logits_behind(*engine, *filled);
    EXPECT_EQ(logits_behind(*engine, *copy), wanted);
    EXPECT_EQ(logits_behind(*engine, *first), wanted) << "the first one is still what it was";
  }
}

TEST(RepeatedContext, ComputesOnlyWhatLiesInNoPage) {
  Ledger ledger;
  const auto engine = pocket(ledger, "f16");
  const auto state = engine->make_state();
  repeat_context(*engine, *state, 2304);
  // Rows of keys of the last page are those of the first: nothing was computed behind it.
  for (size_t i = 0; i < state->n_layers(); ++i) {
    std::vector<std::byte> pages[2];
    for (const int64_t page : {0, 8}) {
      CountingWriter size;
      state->layer(i)->save_page(page, size);
      auto& bytes = pages[page > 0];
      bytes.resize(size.bytes());
      SpanWriter out(bytes);
      state->layer(i)->save_page(page, out);
    }
    EXPECT_EQ(pages[0], pages[1]);
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
  const auto engine = pocket(ledger, "kivi:2", 3);
  SpeedOptions options;
  options.n_tokens = 2;
  options.depth = 2200;
  options.repetitions = 1;
  options.repeat_page = true;
  const SpeedResult result = decode_speed(*engine, options);
  EXPECT_GT(result.tokens_per_second.median, 0);
  EXPECT_EQ(result.state_bytes, engine->model().state_bytes(engine->state_options(), 2202));
  EXPECT_EQ(ledger.peak(Tier::kRam, Tag::kKv), 3 * result.state_bytes) << "three sequences, and no more than they need";
}

}  // namespace
}  // namespace mneme
