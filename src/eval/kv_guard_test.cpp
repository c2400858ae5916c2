#include "eval/kv_guard.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "base/test_data.h"
#include "engine/scheduler.h"
#include "eval/own_text.h"

namespace mneme {
namespace {

constexpr uint32_t kWindow = 256;

/// The model that ships with mneme under a policy that was a bad choice.
class GuardedPocket : public testing::Test {
 protected:
  void load(const char* policy, uint64_t memory = 0) {
    PlanRequest request;
    request.memory = memory;
    request.context = memory == 0 ? std::optional<uint64_t>(2048) : std::nullopt;
    request.kv = KvPolicy::parse(policy);
    request.guard_tokens = kWindow;
    engine_ = Engine::load(source_path("models/pocket.gguf"), request, ledger_);
    if (text_.empty()) text_ = own_text(*engine_, 2000);
  }
  KvGuard guard(double bound, double same, bool may_step = true) {
    return KvGuard(*engine_, {.bound = {bound, same}, .window = kWindow, .every = 500}, may_step);
  }
  std::span<const TokenId> first(size_t n) const { return std::span(text_).first(n); }

  Ledger ledger_;
  std::unique_ptr<Engine> engine_;
  std::vector<TokenId> text_;
};

TEST_F(GuardedPocket, LooksWhenItIsTime) {
  load("kivi:4");
  KvGuard guard = this->guard(10, 0);
  EXPECT_FALSE(guard.look(first(kWindow - 1)));
  const auto finding = guard.look(first(kWindow));
  ASSERT_TRUE(finding);
  EXPECT_TRUE(finding->inside);
  EXPECT_EQ(finding->policy, "kivi:4");
  EXPECT_GT(finding->now.divergence, 0);
  EXPECT_FALSE(guard.look(first(kWindow + 499)));
  EXPECT_TRUE(guard.look(first(kWindow + 500)));
  EXPECT_TRUE(guard.look(first(kWindow)));  // another text
}

TEST_F(GuardedPocket, StepsBackToTheSmallestInside) {
  load("kivi:2");
  // A bound between two bits and more of them on this text, which another processor would go on with differently.
  const auto seen = this->guard(10, 0).look(first(600));
  ASSERT_TRUE(seen);
  const double bound = seen->now.divergence / 4;
  KvGuard guard = this->guard(bound, 0);
  const auto finding = guard.look(first(600));
  ASSERT_TRUE(finding);
  EXPECT_FALSE(finding->inside);
  EXPECT_EQ(engine_->state_options().kv.name(), finding->policy);
  EXPECT_NE(finding->policy, "f16") << finding->reason;
  // The new one holds on the same tokens, and what is generated now is made with it.
  KvGuard again = this->guard(bound, 0);
  const auto after = again.look(first(600));
  ASSERT_TRUE(after);
  EXPECT_TRUE(after->inside) << after->reason;
  GenerationRequest request;
  request.prompt.assign(text_.begin(), text_.begin() + 300);
  request.max_tokens = 8;
  request.sampling.temperature = 0;
  EXPECT_GE(generate(*engine_, std::move(request)).tokens.size(), 1u);
}

TEST_F(GuardedPocket, OnlyF16HoldsAnImpossibleBound) {
  load("kivi:2");
  KvGuard guard = this->guard(0, 1);
  const auto finding = guard.look(first(600));
  ASSERT_TRUE(finding);
  EXPECT_FALSE(finding->inside);
  EXPECT_EQ(finding->policy, "f16");
}

TEST_F(GuardedPocket, MayBeToldOnlyToLook) {
  load("kivi:2");
  KvGuard guard = this->guard(0, 1, false);
  const auto finding = guard.look(first(600));
  ASSERT_TRUE(finding);
  EXPECT_FALSE(finding->inside);
  EXPECT_EQ(engine_->state_options().kv.name(), "kivi:2");
}

TEST_F(GuardedPocket, ALargerFormShortensTheContextInTheSameMemory) {
  load("kivi:2");  // for the text
  const uint64_t wanted = engine_->plan().total();
  engine_.reset();
  ledger_.set_limit(Tier::kRam, UINT64_MAX);
  load("kivi:2", wanted);
  const uint64_t before = engine_->plan().context;
  engine_->change_kv(KvPolicy::parse("f16"));
  EXPECT_LT(engine_->plan().context, before);
  EXPECT_GT(engine_->plan().context, 0u);
  EXPECT_LE(engine_->plan().total(), wanted);
  const uint64_t shorter = engine_->plan().context;
  engine_->change_kv(KvPolicy::parse("kivi:2"));
  EXPECT_EQ(engine_->plan().context, shorter);  // never grows
}

}  // namespace
}  // namespace mneme
