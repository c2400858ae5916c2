#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/test_data.h"
#include "engine/chat_session.h"

namespace mneme {
namespace {

class SchedulerTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = shared_path("data/stories260K.gguf");
    if (!path_) GTEST_SKIP() << "shared data is missing";
  }

  std::unique_ptr<Engine> load(uint32_t n_sequences, uint32_t batch = 64, std::optional<uint64_t> memory = std::nullopt) {
    PlanRequest request;
    request.n_sequences = n_sequences;
    request.batch = batch;
    request.memory = memory.value_or(0);
    return Engine::load(*path_, request, ledger_);
  }

  static GenerationRequest request(const Engine& engine, const std::string& prompt, uint32_t n, float temperature = 0) {
    GenerationRequest out;
    out.prompt = engine.tokenizer().encode(prompt);
    out.max_tokens = n;
    out.sampling.temperature = temperature;
    out.sampling.seed = 5;
    return out;
  }

  Ledger ledger_;
  std::optional<std::string> path_;
};

const std::vector<std::string> kPrompts = {"Once upon a time", "The dog", "Lily and Tom went to the park. They saw",
                                           "One day, a small cat", "Mom said", "The sun was", "A big red ball",
                                           "He was sad because"};

TEST_F(SchedulerTest, EightTogetherAnswerAsEachAlone) {
  const auto alone = load(1);
  std::vector<GenerationResult> want;
  for (const std::string& prompt : kPrompts) want.push_back(generate(*alone, request(*alone, prompt, 40, 0.8f)));

  const auto engine = load(8, 16);  // prompts are cut into pieces
  Scheduler scheduler(*engine);
  std::map<size_t, GenerationResult> got;
  std::map<size_t, std::string> streamed;
  for (size_t i = 0; i < kPrompts.size(); ++i) {
    GenerationRequest r = request(*engine, kPrompts[i], 40, 0.8f);
    r.on_event = [&, i](const GenerationEvent& event) {
      streamed[i] += event.text;
      if (event.finished != nullptr) got[i] = *event.finished;
    };
    scheduler.submit(std::move(r));
    if (i % 3 == 2) scheduler.step();  // later ones join while earlier ones answer
  }
  scheduler.run();
  EXPECT_EQ(scheduler.n_pending(), 0u);
  for (size_t i = 0; i < kPrompts.size(); ++i) {
    EXPECT_EQ(got[i].text, want[i].text) << kPrompts[i];
    EXPECT_EQ(streamed[i], got[i].text);
    EXPECT_EQ(got[i].reason, want[i].reason);
  }
  EXPECT_EQ(ledger_.used(Tier::kRam, Tag::kKv), 0u) << "sequences give their memory back";
}

TEST_F(SchedulerTest, MoreRequestsThanPlacesWaitTheirTurn) {
  const auto engine = load(2);
  Scheduler scheduler(*engine);
  int finished = 0;
  for (int i = 0; i < 7; ++i) {
    GenerationRequest r = request(*engine, kPrompts[static_cast<size_t>(i)], 10);
    r.on_event = [&](const GenerationEvent& event) { finished += event.finished != nullptr ? 1 : 0; };
    scheduler.submit(std::move(r));
  }
  EXPECT_EQ(scheduler.n_pending(), 7u);
  scheduler.run();
  EXPECT_EQ(finished, 7);
}

TEST_F(SchedulerTest, StopStringsLengthContextAndCancel) {
  const auto engine = load(1);
  GenerationRequest stops = request(*engine, "Once upon a time", 60);
  stops.stop = {"She loved"};
  const GenerationResult stopped = generate(*engine, std::move(stops));
  EXPECT_EQ(stopped.reason, FinishReason::kStopString);
  EXPECT_EQ(stopped.text, ", there was a little girl named Lily. ");
  EXPECT_EQ(stopped.stop_string, "She loved");

  EXPECT_EQ(generate(*engine, request(*engine, "Once", 5)).reason, FinishReason::kLength);

  GenerationRequest endless = request(*engine, "Once", 0);
  endless.sampling.ignore_end_of_generation = true;
  const GenerationResult full = generate(*engine, std::move(endless));
  EXPECT_EQ(full.reason, FinishReason::kContext);
  EXPECT_EQ(full.n_prompt + full.tokens.size(), engine->plan().context);

  Scheduler scheduler(*engine);
  Scheduler::RequestId id = 0;
  std::optional<GenerationResult> cancelled;
  GenerationRequest long_one = request(*engine, "Once upon a time", 100);
  long_one.on_event = [&](const GenerationEvent& event) {
    if (event.finished != nullptr) cancelled = *event.finished;
    if (event.token != nullptr) scheduler.cancel(id);
  };
  id = scheduler.submit(std::move(long_one));
  scheduler.run();
  ASSERT_TRUE(cancelled);
  EXPECT_EQ(cancelled->reason, FinishReason::kCancelled);
  EXPECT_LE(cancelled->tokens.size(), 2u);
}

TEST_F(SchedulerTest, RefusesWhatCannotBeBeforeAnythingRuns) {
  const auto engine = load(1);
  Scheduler scheduler(*engine);
  EXPECT_THROW(scheduler.submit(GenerationRequest()), Error);
  GenerationRequest bad_token = request(*engine, "Once", 5);
  bad_token.prompt.push_back(512);
  EXPECT_THROW(scheduler.submit(std::move(bad_token)), Error);
  GenerationRequest too_long = request(*engine, "Once", 512);
  const std::string needed = std::to_string(512 + too_long.prompt.size());
  try {
    scheduler.submit(std::move(too_long));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kContextOverflow);
    const std::string message = e.what();
    EXPECT_NE(message.find("512 tokens"), std::string::npos) << message;
    EXPECT_NE(message.find(needed), std::string::npos) << message;
  }
  GenerationRequest bad_option = request(*engine, "Once", 5);
  bad_option.sampling.top_p = -1;
  EXPECT_THROW(scheduler.submit(std::move(bad_option)), Error);
  EXPECT_EQ(scheduler.n_pending(), 0u);
}

TEST_F(SchedulerTest, LogProbabilitiesAreOfTheModel) {
  const auto engine = load(1);
  GenerationRequest r = request(*engine, "Once upon a time", 8);
  r.n_logprobs = 3;
  const GenerationResult result = generate(*engine, std::move(r));
  for (const GeneratedToken& token : result.tokens) {
    ASSERT_EQ(token.top.size(), 3u);
    EXPECT_EQ(token.top.front().id, token.token) << "greedy takes the most probable token";
    EXPECT_FLOAT_EQ(token.top.front().logprob, token.logprob);
    EXPECT_LE(token.logprob, 0);
    EXPECT_GE(token.top[0].logprob, token.top[1].logprob);
  }
}

TEST_F(SchedulerTest, AConversationReusesWhatItHolds) {
  const auto engine = load(1);
  const auto conversation = std::make_shared<Conversation>();
  GenerationRequest first = request(*engine, "Once upon a time, there was a", 12);
  first.conversation = conversation;
  generate(*engine, std::move(first));

  GenerationRequest again = request(*engine, "Once upon a time, there was a big dog", 12);
  again.conversation = conversation;
  const GenerationResult reused = generate(*engine, std::move(again));
  const GenerationResult fresh = generate(*engine, request(*engine, "Once upon a time, there was a big dog", 12));
  EXPECT_GT(reused.n_reused, 5u);
  EXPECT_EQ(fresh.n_reused, 0u);
  EXPECT_EQ(reused.text, fresh.text);
}

TEST_F(SchedulerTest, GrammarHoldsFromTheFirstToken) {
  const auto engine = load(1);
  GenerationRequest r = request(*engine, "Once upon a time", 30, 1.0f);
  r.grammar = engine->make_grammar("root ::= \" yes\" | \" no\" [!]");
  const std::string text = generate(*engine, std::move(r)).text;
  EXPECT_TRUE(text == " yes" || text == " no!") << text;
}

TEST_F(SchedulerTest, BudgetAdmitsOnlyWhatFits) {
  const uint64_t needed = load(1)->plan().total();
  const auto engine = load(4, 64);
  // A limit with room for about one context: requests run one after the other and all end well.
  const uint64_t one = engine->model().state_bytes(engine->state_options(), 512);
  ledger_.set_limit(Tier::kRam, ledger_.used(Tier::kRam) + one + one / 2);
  Scheduler scheduler(*engine);
  int ended = 0;
  for (int i = 0; i < 3; ++i) {
    GenerationRequest r = request(*engine, kPrompts[static_cast<size_t>(i)], 0);
    r.max_tokens = 400;
    r.on_event = [&](const GenerationEvent& event) {
      if (event.finished != nullptr) ended += event.finished->reason != FinishReason::kError ? 1 : 0;
      EXPECT_LE(ledger_.used(Tier::kRam), ledger_.limit(Tier::kRam));
    };
    scheduler.submit(std::move(r));
  }
  scheduler.run();
  EXPECT_EQ(ended, 3);
  // No room at all: the request ends with the numbers.
  // Spare pages of requests that ended are cache.
  ledger_.set_limit(Tier::kRam, ledger_.used(Tier::kRam) - ledger_.used(Tier::kRam, Tag::kCache) + one / 4);
  GenerationRequest r = request(*engine, kPrompts[0], 400);
  EXPECT_THROW(generate(*engine, std::move(r)), Error);
  EXPECT_GT(needed, 0u);
}

TEST_F(SchedulerTest, ChatSessionKeepsTheDialogue) {
  const auto engine = load(1);
  ChatSession chat(*engine, ChatTemplate::from_source(
                                "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:", "", ""));
  chat.set_system("be kind");
  const GenerationResult first = chat.ask("Who is Lily?", request(*engine, "", 10));
  EXPECT_EQ(chat.messages().size(), 3u);
  const GenerationResult second = chat.ask("And Tom?", request(*engine, "", 10));
  EXPECT_GT(second.n_reused, first.n_prompt / 2);
  EXPECT_EQ(chat.messages().size(), 5u);
  EXPECT_TRUE(chat.undo());
  EXPECT_EQ(chat.messages().size(), 3u);
  EXPECT_EQ(chat.ask("And Tom?", request(*engine, "", 10)).text, second.text);
  EXPECT_THROW(chat.ask(std::string(4000, 'x'), request(*engine, "", 10)), Error);
  EXPECT_EQ(chat.messages().size(), 5u) << "a refused question leaves the dialogue as it was";
  chat.reset();
  EXPECT_EQ(chat.messages().size(), 1u);
  EXPECT_FALSE(chat.undo());
  EXPECT_THROW(chat.ask_again(request(*engine, "", 10)), Error);
}

}  // namespace
}  // namespace mneme
