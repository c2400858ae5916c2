#include "budget/map_ahead.h"

#include <gtest/gtest.h>

#include <cstring>
#include <optional>
#include <vector>

#include "base/error.h"

namespace mneme {
namespace {

constexpr size_t kUnit = 65536;

MappedRange make(Ledger& ledger, size_t capacity = 16 * kUnit) {
  return {ledger, Tag::kKv, kUnit, capacity, "test"};
}

bool is_zero(const std::byte* start, size_t n) {
  return std::all_of(start, start + n, [](std::byte b) { return b == std::byte{0}; });
}

TEST(MapAhead, ARangeGrowsIntoWhatIsMappedAlready) {
  Ledger ledger;
  PagePool& pool = ledger.page_pool();
  MappedRange range = make(ledger);
  range.map_ahead(kUnit);
  EXPECT_EQ(ledger.used(Tier::kRam), 0u) << "nothing lies ahead of what has not begun";
  range.grow_to(kUnit);
  range.map_ahead(3 * kUnit);
  range.map_ahead(3 * kUnit);
  EXPECT_EQ(range.committed(), kUnit);
  EXPECT_EQ(ledger.used(Tier::kRam, Tag::kKv), kUnit);
  EXPECT_EQ(ledger.used(Tier::kRam, Tag::kCache), 2 * kUnit) << "counted once, from the moment it is asked for";
  pool.wait_for_ahead();
  EXPECT_EQ(pool.file_bytes(), 3 * kUnit);
  EXPECT_EQ(pool.stats().spare, 2 * kUnit);
  const PagePool::Stats before = pool.stats();
  EXPECT_GT(before.ahead_seconds, 0);
  range.grow_to(3 * kUnit);
  EXPECT_EQ(pool.stats().map_calls, before.map_calls);
  EXPECT_EQ(ledger.used(Tier::kRam, Tag::kKv), 3 * kUnit);
  EXPECT_EQ(ledger.used(Tier::kRam, Tag::kCache), 0u);
  EXPECT_TRUE(is_zero(range.data(), 3 * kUnit));
  std::memset(range.data(), 1, 3 * kUnit);

  range.map_ahead(100 * kUnit);
  EXPECT_EQ(ledger.used(Tier::kRam), range.capacity()) << "no further than the range may grow";
  range.shrink_to(2 * kUnit);
  EXPECT_EQ(ledger.used(Tier::kRam), 2 * kUnit) << "nor behind a range that shrinks";
  range.grow_to(4 * kUnit);
  EXPECT_TRUE(is_zero(range.data() + 2 * kUnit, 2 * kUnit));
  range = MappedRange();
  EXPECT_EQ(ledger.used(Tier::kRam), 0u);
  EXPECT_EQ(pool.file_bytes(), 0u);
}

TEST(MapAhead, GrowingAtOnceDoesNotWaitForTheQueue) {
  Ledger ledger;
  std::vector<MappedRange> ranges;
  for (int i = 0; i < 20; ++i) {
    ranges.push_back(make(ledger));
    ranges.back().grow_to(kUnit);
  }
  for (MappedRange& range : ranges) range.map_ahead(8 * kUnit);
  for (size_t i = ranges.size(); i-- > 0;) {  // the last asked for first: it is still queued, or under way
    ranges[i].grow_to(8 * kUnit);
    EXPECT_TRUE(is_zero(ranges[i].data(), 8 * kUnit));
    std::memset(ranges[i].data(), 1, 8 * kUnit);
  }
  ledger.page_pool().wait_for_ahead();
  EXPECT_EQ(ledger.used(Tier::kRam, Tag::kKv), 20 * 8 * kUnit);
  EXPECT_EQ(ledger.used(Tier::kRam), 20 * 8 * kUnit);
  EXPECT_EQ(ledger.page_pool().file_bytes(), 20 * 8 * kUnit);
}

/// Would give everything back, but must not be asked.
class Asked : public Reclaimer {
 public:
  std::string name() const override { return "asked"; }
  uint64_t reclaimable(Tier) const override { return kUnit; }
  double cost_per_byte() const override { return 1; }
  uint64_t reclaim(Tier, uint64_t) override {
    ++times;
    return 0;
  }
  int times = 0;
};

TEST(MapAhead, TheBudgetRefusesAsWithoutIt) {
  Ledger ledger(4 * kUnit);
  PagePool& pool = ledger.page_pool();
  MappedRange a = make(ledger), b = make(ledger);
  a.grow_to(kUnit);
  b.grow_to(kUnit);
  Asked others;
  ledger.add_reclaimer(&others);
  a.map_ahead(10 * kUnit);
  EXPECT_EQ(ledger.used(Tier::kRam), 4 * kUnit) << "as much as there is room for";
  EXPECT_EQ(others.times, 0) << "nobody gives anything back for it";
  for (const bool mapped : {false, true}) {
    a.map_ahead(10 * kUnit);
    if (mapped) pool.wait_for_ahead();
    b.grow_to(3 * kUnit);
    EXPECT_EQ(ledger.used(Tier::kRam, Tag::kKv), 4 * kUnit) << "what is needed goes before what may be";
    EXPECT_THROW(a.grow_to(2 * kUnit), Error);
    EXPECT_EQ(a.committed(), kUnit);
    b.shrink_to(kUnit);
    EXPECT_EQ(ledger.used(Tier::kRam), 2 * kUnit);
  }
  a.map_ahead(3 * kUnit);
  EXPECT_EQ(ledger.set_limit(Tier::kRam, 3 * kUnit), 0u) << "a lower limit takes it back";
  EXPECT_LE(ledger.used(Tier::kRam), 3 * kUnit);
  ledger.remove_reclaimer(&others);
}

TEST(MapAhead, ItCanBeSwitchedOff) {
  Ledger ledger;
  ledger.page_pool().set_ahead(false);
  MappedRange range = make(ledger);
  range.grow_to(kUnit);
  range.map_ahead(3 * kUnit);
  EXPECT_EQ(ledger.used(Tier::kRam), kUnit);
  ledger.page_pool().set_ahead(true);
  range.map_ahead(3 * kUnit);
  EXPECT_EQ(ledger.used(Tier::kRam), 3 * kUnit);
}

}  // namespace
}  // namespace mneme
