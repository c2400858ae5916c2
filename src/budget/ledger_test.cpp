#include "budget/ledger.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"

namespace mneme {
namespace {

TEST(Ledger, CountsByTagAndGivesBack) {
  Ledger ledger(1000);
  Reservation weights = ledger.reserve(Tag::kWeights, 600, "weights");
  {
    const Reservation kv = ledger.reserve(Tag::kKv, 300, "kv");
    EXPECT_EQ(ledger.used(Tier::kRam), 900u);
    EXPECT_EQ(ledger.available(Tier::kRam), 100u);
  }
  EXPECT_EQ(ledger.used(Tier::kRam, Tag::kKv), 0u);
  EXPECT_EQ(ledger.peak(Tier::kRam), 900u);
  weights.resize(100);
  EXPECT_EQ(ledger.used(Tier::kRam, Tag::kWeights), 100u);
  EXPECT_THROW(weights.resize(1001), Error);
  EXPECT_EQ(weights.bytes(), 100u);
  Reservation moved = std::move(weights);
  moved.release();
  EXPECT_EQ(ledger.used(Tier::kRam), 0u);
}

TEST(Ledger, RefusalNamesTheNumbers) {
  Ledger ledger(1 << 20);
  EXPECT_FALSE(ledger.try_reserve(Tag::kKv, 2 << 20, "context"));
  try {
    ledger.reserve(Tag::kKv, 2 << 20, "context of 4096 tokens");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kOutOfBudget);
    const std::string message = e.what();
    for (const char* part : {"kv", "context of 4096 tokens", "2.00 MiB", "1.00 MiB"}) {
      EXPECT_NE(message.find(part), std::string::npos) << message;
    }
  }
  EXPECT_EQ(ledger.used(Tier::kRam), 0u);
}

/// Gives its whole reservation back in steps of what is asked.
class Pool : public Reclaimer {
 public:
  Pool(Ledger& ledger, uint64_t bytes, double cost, std::string name)
      : held_(ledger.reserve(Tag::kCache, bytes, name)), cost_(cost), name_(name) {}
  std::string name() const override { return name_; }
  uint64_t reclaimable(Tier tier) const override { return tier == Tier::kRam ? held_.bytes() : 0; }
  double cost_per_byte() const override { return cost_; }
  uint64_t reclaim(Tier, uint64_t bytes) override {
    const uint64_t freed = std::min(bytes, held_.bytes());
    held_.resize(held_.bytes() - freed);
    return freed;
  }
  uint64_t held() const { return held_.bytes(); }

 private:
  Reservation held_;
  double cost_;
  std::string name_;
};

TEST(Ledger, PressureTakesTheCheapestHolderFirst) {
  Ledger ledger(1000);
  Pool dear(ledger, 400, 10, "dear"), cheap(ledger, 400, 1, "cheap");
  ledger.add_reclaimer(&dear);
  ledger.add_reclaimer(&cheap);
  std::vector<std::string> reclaimed;
  const int handle = ledger.add_listener([&](const BudgetEvent& event) {
    if (event.kind == BudgetEvent::Kind::kReclaim) reclaimed.push_back(event.what);
  });
  const Reservation kv = ledger.reserve(Tag::kKv, 500, "kv");
  EXPECT_EQ(cheap.held(), 100u);
  EXPECT_EQ(dear.held(), 400u);
  EXPECT_EQ(ledger.set_limit(Tier::kRam, 700), 0u);
  EXPECT_EQ(cheap.held(), 0u);
  EXPECT_EQ(dear.held(), 200u);
  EXPECT_EQ(ledger.set_limit(Tier::kRam, 450), 50u);
  EXPECT_EQ(reclaimed, (std::vector<std::string>{"cheap", "cheap", "dear", "dear"}));
  ledger.remove_listener(handle);
  ledger.remove_reclaimer(&dear);
  ledger.remove_reclaimer(&cheap);
}

TEST(Ledger, ConcurrentReservationsNeverPassTheLimit) {
  Ledger ledger(64);
  std::atomic<bool> exceeded{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        const auto held = ledger.try_reserve(Tag::kScratch, 20, "scratch");
        if (ledger.used(Tier::kRam) > 64) exceeded = true;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(exceeded);
  EXPECT_EQ(ledger.used(Tier::kRam), 0u);
  EXPECT_LE(ledger.peak(Tier::kRam), 64u);
}

}  // namespace
}  // namespace mneme
