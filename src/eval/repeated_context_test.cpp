#include "eval/repeated_context.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/test_data.h"
#include "base/test_error.h"
#include "engine/engine.h"
#include "eval/drawn_context.h"
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

TEST(RepeatedContext, DrawsTokensWhereThereAreNoPagesToCopy) {
  for (const char* kv : {"shadowkv:rank=64,budget=256", "shadowkv:rank=64,budget=256,values=disk",
                         "window:recent=512,sink=8", "minicache+kivi:4"}) {
    SCOPED_TRACE(kv);
    Ledger ledger;
    const auto engine = pocket(ledger, kv);
    constexpr uint32_t kTokens = 2200;
    const auto drawn = engine->make_state(), again = engine->make_state(), computed = engine->make_state();
    repeat_context(*engine, *drawn, kTokens);
    repeat_context(*engine, *again, kTokens);
    engine->run(*computed, random_tokens(engine->model(), kTokens), [](size_t, size_t, const float*) {});
    EXPECT_EQ(drawn->n_tokens(), kTokens);
    EXPECT_EQ(drawn->bytes(), computed->bytes());
    for (size_t i = 0; i < drawn->n_layers(); ++i) EXPECT_EQ(drawn->layer(i)->n_tokens(), kTokens);
    EXPECT_EQ(logits_behind(*engine, *drawn), logits_behind(*engine, *again)) << "the same for a model every time";
    EXPECT_TRUE(drawn->truncate(kTokens)) << "and back to there";
  }
}

/// Keeps what a state saves.
class Bytes : public StateWriter {
 public:
  void write(std::span<const std::byte> bytes) override { data.insert(data.end(), bytes.begin(), bytes.end()); }
  std::vector<std::byte> data;
};

// f16 keeps rows apart by head, [256, dim] keys and then values, so that values of drawn tokens can be looked for.
TEST(DrawnContext, TokensAreThoseOfTheTextAndNotInItsOrder) {
  Ledger ledger;
  const auto engine = pocket(ledger, "f16");
  const auto drawn = engine->make_state(), text = engine->make_state();
  draw_context(*engine, *drawn, 2048);
  engine->run(*text, random_tokens(engine->model(), 1024), [](size_t, size_t, const float*) {});
  std::vector<ptrdiff_t> places;  // in the text, of the first drawn token
  for (const size_t layer : {size_t{0}, drawn->n_layers() - 1}) {
    const KvShape shape = engine->model().blocks[layer].mixer->kv_shape().value();
    const size_t row = size_t{shape.value_dim} * 2;
    const auto last_values = [&](const SequenceState& state, int64_t page) {  // of the last head
      Bytes bytes;
      state.layer(layer)->save_page(page, bytes);
      std::vector<std::string> rows;
      const auto* const begin = reinterpret_cast<const char*>(bytes.data.data() + bytes.data.size() - 256 * row);
      for (size_t t = 0; t < 256; ++t) rows.emplace_back(begin + t * row, row);
      return rows;
    };
    const std::vector<std::string> known = last_values(*text, 3);
    EXPECT_EQ(last_values(*drawn, 3), known) << "the text itself";
    const std::vector<std::string> fifth = last_values(*drawn, 4), sixth = last_values(*drawn, 5);
    for (const std::string& value : fifth) EXPECT_NE(std::find(known.begin(), known.end(), value), known.end());
    EXPECT_NE(fifth, known);
    EXPECT_NE(fifth, sixth);
    places.push_back(std::find(known.begin(), known.end(), fifth[0]) - known.begin());
  }
  EXPECT_EQ(places[0], places[1]) << "the same token in all layers";
}

TEST(DrawnContext, RefusesStoresThatNeedQueries) {
  for (const char* kv : {"h2o", "mikv"}) {
    Ledger ledger;
    const auto engine = pocket(ledger, kv);
    const auto state = engine->make_state();
    EXPECT_THAT(error_of([&] { repeat_context(*engine, *state, 2200); }), ::testing::HasSubstr("compute the context"));
  }
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
