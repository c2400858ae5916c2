#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "base/test_data.h"
#include "context/shadow_kv.h"
#include "engine/kv_fit.h"
#include "engine/scheduler.h"

namespace mneme {
namespace {

const std::string kModel = source_path("models/pocket.gguf");
constexpr const char* kSparse = "shadowkv:rank=48,budget=64,fit=256,values=disk";

class KvTiers : public testing::Test {
 protected:
  std::unique_ptr<Engine> load(const KvPolicy& kv, uint32_t n_sequences = 1, uint32_t batch = 128,
                               const std::string& model = kModel, uint64_t context = 1024) {
    PlanRequest request;
    request.context = context;
    request.batch = batch;
    request.n_sequences = n_sequences;
    request.kv = kv;
    return Engine::load(model, request, ledger_);
  }

  static GenerationRequest request(const Engine& engine, size_t start, uint32_t n) {
    std::string text = "Once upon a time";
    for (size_t i = start; i < start + 420; ++i)
      text += i % 7 == 0 ? " and then" : i % 3 == 0 ? " the dog" : i % 5 == 0 ? " saw" : " a man";
    GenerationRequest out;
    out.prompt = engine.tokenizer().encode(text);
    out.max_tokens = n;
    out.sampling.temperature = 0;
    out.sampling.ignore_end_of_generation = true;
    out.n_logprobs = 1;
    return out;
  }

  static void expect_same(const GenerationResult& got, const GenerationResult& want) {
    ASSERT_EQ(got.tokens.size(), want.tokens.size());
    for (size_t i = 0; i < got.tokens.size(); ++i) {
      ASSERT_EQ(got.tokens[i].token, want.tokens[i].token) << i;
      EXPECT_NEAR(got.tokens[i].logprob, want.tokens[i].logprob, 2e-3) << i;
    }
  }

  Ledger ledger_;
};

// A model of floats: where activations become 8-bit integers, the smallest difference can turn an answer. Keys and
// values are rounded to f16 once more than in a plain store.
TEST_F(KvTiers, WholeRanksAndBudgetsAnswerAsPlainOnes) {
  const auto path = shared_path("data/stories260K.gguf");
  if (!path) GTEST_SKIP() << "shared data is missing";
  const auto answer = [&](Engine& engine) {
    GenerationRequest r = request(engine, 0, 40);
    r.prompt.resize(450);
    return generate(engine, std::move(r));
  };
  const auto plain = load(KvPolicy::parse("f16"), 1, 128, *path, 512);
  const GenerationResult want = answer(*plain);
  const auto shadow = load(KvPolicy::parse("shadowkv:rank=65536,budget=100%,fit=256,values=disk"), 1, 128, *path, 512);
  const GenerationResult got = answer(*shadow);
  expect_same(got, want);
  EXPECT_GT(got.fetches.wanted, 0u);
  for (const char* policy : {"instinfer:density=1", "instinfer:density=0.99999,channels=32,residual=16"}) {
    const auto near_data = load(KvPolicy::parse(policy), 1, 128, *path, 512);
    const GenerationResult same = answer(*near_data);
    expect_same(same, want);
    EXPECT_GT(same.fetches.passed, 0u);
  }

  KvPolicy cskv = KvPolicy::parse("cskv:1");
  const std::vector<TokenId> text = request(*plain, 0, 1).prompt;
  cskv.set_bases(fit_kv_bases(*plain, text, cskv, [](uint64_t, uint64_t) {}));
  const auto features = load(cskv, 1, 128, *path, 512);
  expect_same(answer(*features), want);
}

class KvTiersTogether : public KvTiers, public testing::WithParamInterface<const char*> {
 protected:
  /// The policy, with bases of ranks that differ by layer when it needs some.
  KvPolicy policy() {
    KvPolicy out = KvPolicy::parse(GetParam());
    if (!out.needs_bases()) return out;
    const auto plain = load(KvPolicy::parse("f16"));
    const auto moments = collect_kv_moments(*plain, request(*plain, 0, 1).prompt, [](uint64_t, uint64_t) {});
    std::vector<KvRanks> ranks;
    for (size_t i = 0; i < plain->model().blocks.size(); ++i) ranks.push_back({60 + 8 * i, 100 - 8 * i});
    out.set_bases(fit_kv_bases(plain->model(), *moments, out, ranks));
    return out;
  }
};

TEST_P(KvTiersTogether, AnswerAsEachAlone) {
  const KvPolicy policy = this->policy();
  const auto alone = load(policy);
  std::vector<GenerationResult> want;
  for (size_t i = 0; i < 3; ++i) want.push_back(generate(*alone, request(*alone, i, 12)));
  EXPECT_NE(want[0].text, want[1].text);
  const auto engine = load(policy, 3, 32);  // prompts are cut into pieces
  Scheduler scheduler(*engine);
  std::map<size_t, GenerationResult> got;
  for (size_t i = 0; i < 3; ++i) {
    GenerationRequest r = request(*engine, i, 12);
    r.on_event = [&, i](const GenerationEvent& event) {
      if (event.finished != nullptr) got[i] = *event.finished;
    };
    scheduler.submit(std::move(r));
    scheduler.step();
  }
  scheduler.run();
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(got[i].text, want[i].text) << i;
}

TEST_P(KvTiersTogether, HoldTheBytesOfThePlan) {
  const auto engine = load(policy());
  const uint64_t before = ledger_.used(Tier::kRam, Tag::kKv);
  const auto state = engine->make_state();
  const std::vector<TokenId> tokens(1000, 5);
  for (const size_t n : {300u, 1u, 699u}) {
    engine->run(*state, std::span(tokens).first(n), [](size_t, size_t, const float*) {});
    const uint64_t bytes = engine->model().state_bytes(engine->state_options(), static_cast<uint64_t>(state->n_tokens()));
    EXPECT_EQ(state->bytes(), bytes);
    EXPECT_EQ(ledger_.used(Tier::kRam, Tag::kKv) - before, bytes);
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, KvTiersTogether,
                         testing::Values(kSparse, "instinfer:density=1/4,channels=32,residual=16",
                                         "cskv:0.5,ranks=measured", "cskv:0.5,ranks=measured+kivi:4"));

TEST_F(KvTiers, APlanSaysWhatLiesOnDisk) {
  const auto bytes = [&](const char* policy) { return load(KvPolicy::parse(policy))->plan().kv_disk_bytes; };
  EXPECT_EQ(bytes("f16"), 0u);
  EXPECT_EQ(bytes("shadowkv"), 0u);
  EXPECT_GT(bytes(kSparse), 0u);
  EXPECT_GT(bytes("instinfer"), 0u);
}

TEST_F(KvTiers, ADiskThatFailsEndsItsRequestAlone) {
  const auto engine = load(KvPolicy::parse(kSparse), 2);
  const GenerationResult want = generate(*engine, request(*engine, 1, 12));
  const auto conversation = std::make_shared<Conversation>();
  GenerationRequest broken = request(*engine, 0, 4);
  broken.conversation = conversation;
  generate(*engine, std::move(broken));
  const auto& store = static_cast<const ShadowKv&>(*conversation->state->layer(2));
  ASSERT_EQ(::ftruncate(store.descriptor(), 0), 0);

  Scheduler scheduler(*engine);
  std::vector<GenerationResult> results(2);
  for (size_t i = 0; i < 2; ++i) {
    GenerationRequest r = request(*engine, i, 12);
    if (i == 0) r.conversation = conversation;
    r.on_event = [&, i](const GenerationEvent& event) {
      if (event.finished != nullptr) results[i] = *event.finished;
    };
    scheduler.submit(std::move(r));
  }
  scheduler.run();
  EXPECT_EQ(results[0].reason, FinishReason::kError);
  EXPECT_EQ(results[0].error_code, ErrorCode::kIo);
  EXPECT_NE(results[0].error.find("[read values]"), std::string::npos) << results[0].error;
  EXPECT_NE(results[0].error.find("layer 2"), std::string::npos) << results[0].error;
  EXPECT_EQ(conversation->state, nullptr);
  EXPECT_EQ(results[1].text, want.text);
}

}  // namespace
}  // namespace mneme
