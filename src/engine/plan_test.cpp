#include "engine/plan.h"

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "base/test_data.h"
#include "engine/engine.h"

namespace mneme {
namespace {

class PlanTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto path = shared_path("golden/logits/llama.gguf");
    if (!path) GTEST_SKIP() << "shared data is missing";
    path_ = *path;
    file_.emplace(open_model(path_, ledger_));
    model_ = Model::build(*file_, ledger_);
  }

  std::string path_;
  Ledger ledger_;
  std::optional<ModelFile> file_;
  std::unique_ptr<Model> model_;
};

constexpr uint64_t kRuntime = uint64_t{10} << 20;

TEST_F(PlanTest, ContextShrinksToTheLimitAndTheTableAddsUp) {
  PlanRequest request;
  request.memory = uint64_t{1} << 30;
  request.batch = 64;
  const MemoryPlan roomy = make_plan(*model_, request, {kRuntime});
  EXPECT_EQ(roomy.context, model_->hyper.n_context);
  EXPECT_LE(roomy.total(), request.memory);
  request.memory = roomy.total() - roomy.bytes(Tag::kKv) / 2;
  const MemoryPlan tight = make_plan(*model_, request, {kRuntime});
  EXPECT_LT(tight.context, roomy.context);
  EXPECT_GT(tight.context, 0u);
  EXPECT_LE(tight.total(), request.memory);
  // One more block of context would not have fitted.
  request.context = tight.context + 256;
  EXPECT_THROW(make_plan(*model_, request, {kRuntime}), Error);
}

TEST_F(PlanTest, RefusalNamesTheMinimumAndTheMinimumWorks) {
  PlanRequest request;
  request.memory = uint64_t{1} << 20;
  try {
    make_plan(*model_, request, {kRuntime});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kOutOfBudget);
    EXPECT_NE(e.hint().find("--memory"), std::string::npos) << e.hint();
    EXPECT_NE(std::string(e.what()).find("weights"), std::string::npos);
  }
  request.context = model_->hyper.n_context + 1;
  request.memory = uint64_t{1} << 30;
  EXPECT_THROW(make_plan(*model_, request, {kRuntime}), Error);
  request.context = 256;
  request.n_sequences = kMostSequences + 1;
  EXPECT_THROW(make_plan(*model_, request, {kRuntime}), Error);
}

TEST_F(PlanTest, MoreSequencesNeedExactlyTheirState) {
  PlanRequest request;
  request.memory = uint64_t{1} << 30;
  request.context = 512;
  const MemoryPlan one = make_plan(*model_, request, {kRuntime});
  request.n_sequences = 4;
  const MemoryPlan four = make_plan(*model_, request, {kRuntime});
  EXPECT_EQ(four.bytes(Tag::kKv), 4 * one.bytes(Tag::kKv));
  EXPECT_EQ(one.bytes(Tag::kKv), model_->state_bytes({request.kv, 512, one.batch}, 512));
}

TEST_F(PlanTest, AsManySequencesAsFit) {
  PlanRequest request;
  request.context = 512;
  request.batch = 64;
  const MemoryPlan one = make_plan(*model_, request, {kRuntime});
  request.n_sequences = 5;
  request.memory = make_plan(*model_, request, {kRuntime}).total();
  request.n_sequences = 0;
  EXPECT_EQ(make_plan(*model_, request, {kRuntime}).n_sequences, 5u);
  --request.memory;
  const MemoryPlan four = make_plan(*model_, request, {kRuntime});
  EXPECT_EQ(four.n_sequences, 4u);
  EXPECT_EQ(four.bytes(Tag::kKv), 4 * one.bytes(Tag::kKv));

  // Sequences are worth more than passes of more than 128 tokens, and those more than a last sequence.
  request.memory = 0;
  request.batch = 512;
  request.n_sequences = 2;
  request.memory = make_plan(*model_, request, {kRuntime}).total();
  request.batch.reset();
  request.n_sequences = 0;
  const MemoryPlan many = make_plan(*model_, request, {kRuntime});
  EXPECT_GT(many.n_sequences, 2u);
  EXPECT_GE(many.batch, 128u);
  EXPECT_LE(many.total(), request.memory);

  // One must fit, or the refusal names what it needs.
  request.memory = one.total() / 2;
  EXPECT_THROW(make_plan(*model_, request, {kRuntime}), Error);
}

TEST_F(PlanTest, LoadedEngineHoldsWhatWasPlanned) {
  Ledger ledger;
  PlanRequest request;
  request.context = 512;
  request.batch = 64;
  const auto engine = Engine::load(path_, request, ledger);
  const auto state = engine->make_state();
  std::vector<TokenId> tokens(512, 1);
  engine->run(*state, tokens, [](size_t, size_t, const float*) {});
  EXPECT_EQ(ledger.used(Tier::kRam, Tag::kKv), engine->plan().bytes(Tag::kKv));
  EXPECT_LE(ledger.peak(Tier::kRam, Tag::kScratch), engine->plan().bytes(Tag::kScratch));
  EXPECT_LE(ledger.peak(Tier::kRam), engine->plan().total() + 64 * 1024);
  EXPECT_GE(ledger.peak(Tier::kRam), engine->plan().total() * 95 / 100);
}

TEST_F(PlanTest, GrammarsHaveARowOfTheirOwn) {
  Ledger ledger;
  PlanRequest request;
  request.context = 128;
  request.batch = 16;
  request.grammar = true;
  const auto engine = Engine::load(path_, request, ledger);
  const uint64_t planned = engine->plan().bytes(Tag::kCache);
  const uint64_t tree = ledger.used(Tier::kRam, Tag::kCache);
  EXPECT_GT(tree, engine->vocabulary().size() * 12);
  EXPECT_EQ(planned, tree + TokenMatcher::usual_bytes(engine->vocabulary().size()));
  const auto state = engine->make_grammar("root ::= \"a\" [b-y]* \"z\"");
  (void)state->mask();
  EXPECT_GT(ledger.used(Tier::kRam, Tag::kCache), tree);
  EXPECT_LE(ledger.used(Tier::kRam, Tag::kCache), planned);
  EXPECT_EQ(ledger.used(Tier::kRam, Tag::kScratch), 0u);

  request.grammar = false;
  Ledger other;
  EXPECT_EQ(Engine::plan_only(path_, request, other)->plan().bytes(Tag::kCache), 0u);
}

}  // namespace
}  // namespace mneme
