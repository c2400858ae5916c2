#include "budget/mapped_range.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstring>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/philox.h"
#include "base/test_sanitizer.h"
#include "budget/page_pool.h"
#include "budget/resident.h"

namespace mneme {
namespace {

constexpr size_t kUnit = 16384, kCapacity = 64 * kUnit;

MappedRange make(Ledger& ledger, size_t capacity = kCapacity) {
  return {ledger, Tag::kKv, kUnit, capacity, "test"};
}

/// Mappings of the process that show memory files.
uint64_t mappings_of_files() {
  std::ifstream maps("/proc/self/maps");
  uint64_t n = 0;
  for (std::string line; std::getline(maps, line);) n += line.find("mneme-pages") != std::string::npos ? 1 : 0;
  return n;
}

bool all_are(const std::byte* start, size_t n, std::byte value) {
  return std::all_of(start, start + n, [=](std::byte b) { return b == value; });
}

TEST(MappedRange, KeepsItsAddressAndCountsWhatItTakes) {
  Ledger ledger(20 * kUnit);
  MappedRange range = make(ledger, size_t{1} << 40);
  EXPECT_EQ(ledger.used(Tier::kRam), 0u);
  range.grow_to(1);
  std::byte* const start = range.data();
  EXPECT_EQ(range.committed(), kUnit);
  EXPECT_EQ(ledger.used(Tier::kRam, Tag::kKv), kUnit);
  EXPECT_TRUE(all_are(start, kUnit, std::byte{0}));
  std::memset(start, 7, kUnit);
  range.grow_to(5 * kUnit);
  EXPECT_EQ(range.data(), start);
  EXPECT_EQ(start[kUnit - 1], std::byte{7});
  EXPECT_EQ(ledger.page_pool().file_bytes(), 5 * kUnit);
  EXPECT_EQ(mappings_of_files(), 1u) << "neighbours are one mapping";
  EXPECT_THROW(range.grow_to(21 * kUnit), Error);
  EXPECT_EQ(range.committed(), 5 * kUnit);
  EXPECT_EQ(ledger.used(Tier::kRam), 5 * kUnit) << "what was refused changes nothing";
  EXPECT_EQ(ledger.page_pool().file_bytes(), 5 * kUnit);
  MappedRange moved = std::move(range);
  EXPECT_EQ(moved.data(), start);
  moved.shrink_to(kUnit);
  EXPECT_EQ(ledger.used(Tier::kRam), kUnit);
  EXPECT_EQ(ledger.page_pool().file_bytes(), kUnit);
  moved.grow_to(2 * kUnit);
  EXPECT_TRUE(all_are(start + kUnit, kUnit, std::byte{0})) << "pages come back empty";
  moved = MappedRange();
  EXPECT_EQ(ledger.used(Tier::kRam), 0u);
  EXPECT_EQ(ledger.page_pool().file_bytes(), 0u);
  EXPECT_THROW(MappedRange(ledger, Tag::kKv, 5000, 10000, "test"), Error);
}

TEST(MappedRange, SharedUnitsLieInMemoryOnceUntilOneIsMadePrivate) {
  Ledger ledger;
  PagePool& pool = ledger.page_pool();
  std::optional<MappedRange> a = make(ledger);
  a->grow_to(3 * kUnit);
  for (size_t i = 0; i < 3; ++i) std::memset(a->data() + i * kUnit, static_cast<int>(i + 1), kUnit);
  MappedRange b = make(ledger), c = make(ledger);
  for (size_t i = 0; i < 3; ++i) {
    const PageRun run = a->share(i);
    b.append(run);
    c.append(run);
  }
  EXPECT_EQ(ledger.used(Tier::kRam), 3 * kUnit) << "three times the same pages";
  EXPECT_EQ(pool.file_bytes(), 3 * kUnit);
  EXPECT_EQ(b.committed(), 3 * kUnit);
  EXPECT_TRUE(all_are(c.data() + 2 * kUnit, kUnit, std::byte{3}));

  b.make_private(2);
  EXPECT_TRUE(all_are(b.data() + 2 * kUnit, kUnit, std::byte{3})) << "with its content";
  std::memset(b.data() + 2 * kUnit, 9, kUnit);
  EXPECT_EQ(c.data()[2 * kUnit], std::byte{3});
  EXPECT_EQ(a->data()[2 * kUnit], std::byte{3});
  EXPECT_EQ(ledger.used(Tier::kRam), 4 * kUnit) << "only what was made private is there twice";
  a.reset();
  EXPECT_EQ(c.data()[0], std::byte{1}) << "others keep what the first one had";
  c = MappedRange();
  EXPECT_EQ(ledger.used(Tier::kRam), 3 * kUnit);
  EXPECT_EQ(b.data()[2 * kUnit], std::byte{9});
  b.make_private(1);  // nobody else has it now: no copy
  b.data()[kUnit] = std::byte{5};
  EXPECT_EQ(ledger.used(Tier::kRam), 3 * kUnit);
  b.grow_to(5 * kUnit);
  EXPECT_TRUE(all_are(b.data() + 3 * kUnit, 2 * kUnit, std::byte{0}));
}

TEST(MappedRange, SharedUnitsCannotBeWritten) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  if (kThreadSanitizer || kAddressSanitizer) GTEST_SKIP() << "the sanitizers catch the fault first";
  EXPECT_DEATH(
      {
        Ledger ledger;
        MappedRange a = make(ledger);
        a.grow_to(kUnit);
        const PageRun run = a.share(0);
        a.data()[0] = std::byte{1};
      },
      "");
}

TEST(MappedRange, HeldPagesCountAsCacheUntilSomebodyUsesThem) {
  Ledger ledger;
  PageRun run;
  {
    MappedRange a = make(ledger);
    a.grow_to(kUnit);
    std::memset(a.data(), 4, kUnit);
    run = a.share(0);
    EXPECT_EQ(ledger.used(Tier::kRam, Tag::kKv), kUnit);
  }
  EXPECT_EQ(ledger.used(Tier::kRam, Tag::kKv), 0u);
  EXPECT_EQ(ledger.used(Tier::kRam, Tag::kCache), kUnit);
  EXPECT_EQ(ledger.page_pool().stats().held, kUnit);
  MappedRange b = make(ledger);
  b.append(run);
  EXPECT_EQ(b.data()[kUnit - 1], std::byte{4});
  EXPECT_EQ(ledger.used(Tier::kRam, Tag::kKv), kUnit);
  EXPECT_EQ(ledger.used(Tier::kRam, Tag::kCache), 0u);
  run = {};
  b = MappedRange();
  EXPECT_EQ(ledger.used(Tier::kRam), 0u);
}

// Equal ranges one after another map nothing after the first; what they find is zero; and what waits goes when the
// ledger needs it.
TEST(MappedRange, EndedRangesLeaveTheirPagesToTheNext) {
  Ledger ledger(10 * kUnit);
  PagePool& pool = ledger.page_pool();
  {
    const PagePool::Deferral deferral(pool);
    uint64_t after_first = 0;
    for (int i = 0; i < 4; ++i) {
      MappedRange range = make(ledger);
      range.grow_to(2 * kUnit);
      range.grow_to(6 * kUnit);
      EXPECT_TRUE(all_are(range.data(), 6 * kUnit, std::byte{0}));
      std::memset(range.data(), 1, 6 * kUnit);
      if (i == 0) after_first = pool.stats().map_calls;
    }
    EXPECT_EQ(pool.stats().map_calls, after_first);
    EXPECT_EQ(pool.stats().spare, 6 * kUnit);
    EXPECT_EQ(ledger.used(Tier::kRam, Tag::kCache), 6 * kUnit);

    MappedRange other = make(ledger, 2 * kCapacity);  // of another kind
    other.grow_to(7 * kUnit);
    EXPECT_EQ(pool.stats().spare, 3 * kUnit) << "the ledger asked for as much as was missing";
    MappedRange small = make(ledger);
    small.grow_to(kUnit);
    EXPECT_EQ(pool.stats().spare, 2 * kUnit);
    other.grow_to(9 * kUnit);
    EXPECT_EQ(pool.stats().spare, 0u) << "also of ranges that are in use";
    EXPECT_THROW(small.grow_to(2 * kUnit), Error);
    EXPECT_EQ(ledger.used(Tier::kRam), 10 * kUnit);
  }
  EXPECT_EQ(ledger.used(Tier::kRam), 0u);
  EXPECT_EQ(pool.file_bytes(), 0u);
}

TEST(MappedRange, TheNextRangeTakesWhatFitsBest) {
  Ledger ledger;
  PagePool& pool = ledger.page_pool();
  const PagePool::Deferral deferral(pool);
  const std::byte* places[3];
  {
    MappedRange ranges[] = {make(ledger), make(ledger), make(ledger)};
    for (size_t i = 0; i < 3; ++i) {
      ranges[i].grow_to((2 + 3 * i) * kUnit);  // 2, 5 and 8 units
      places[i] = ranges[i].data();
    }
  }
  MappedRange four = make(ledger);
  four.grow_to(4 * kUnit);
  EXPECT_EQ(four.data(), places[1]) << "the fewest that suffice";
  MappedRange ten = make(ledger);
  ten.grow_to(10 * kUnit);
  EXPECT_EQ(ten.data(), places[2]) << "none suffices: the most";
}

TEST(MappedRange, NearTheLimitOfMappingsUnitsAreCopied) {
  Ledger ledger;
  PagePool& pool = ledger.page_pool();
  MappedRange a = make(ledger), b = make(ledger);
  a.grow_to(4 * kUnit);
  std::memset(a.data(), 6, 4 * kUnit);
  std::vector<PageRun> runs;
  for (size_t i = 0; i < 4; i += 2) runs.push_back(a.share(i));
  pool.set_most_mappings(pool.stats().n_mappings);
  EXPECT_FALSE(a.share(1)) << "protecting it would split a mapping";
  for (const PageRun& run : runs) b.append(run);
  EXPECT_TRUE(all_are(b.data(), 2 * kUnit, std::byte{6}));
  b.data()[0] = std::byte{1};
  EXPECT_EQ(a.data()[0], std::byte{6});
  EXPECT_EQ(ledger.used(Tier::kRam), 6 * kUnit);
}

/// Random growing, shrinking, sharing, holding and letting go. After each step every byte is accounted for, contents
/// are what their owners wrote, and the system's numbers agree.
class RandomRanges {
 public:
  explicit RandomRanges(uint64_t seed) : random_(seed) {
    for (size_t i = 0; i < kRanges; ++i) ranges_.push_back(make(ledger_));
    marks_.resize(kRanges);
  }

  void step() {
    const size_t i = random_.next_below(kRanges), j = random_.next_below(kRanges);
    MappedRange& range = ranges_[i];
    std::vector<uint32_t>& marks = marks_[i];
    switch (random_.next_below(9)) {
      case 0:
      case 1:
        return grow(i, marks.size() + 1 + random_.next_below(4));
      case 2: {
        const size_t n = random_.next_below(static_cast<uint32_t>(marks.size() + 1));
        range.shrink_to(n * kUnit);
        marks.resize(n);
        return;
      }
      case 3:  // the beginning of another one
        if (i == j) return;
        range.shrink_to(0);
        marks.clear();
        for (size_t k = 0; k < marks_[j].size(); ++k) {
          const PageRun run = ranges_[j].share(k);
          ASSERT_TRUE(run);
          range.append(run);
          marks.push_back(marks_[j][k]);
        }
        return;
      case 4:
        if (marks.empty()) return;
        return rewrite(i, random_.next_below(static_cast<uint32_t>(marks.size())));
      case 5:
      case 6:
        return range.map_ahead((marks.size() + 1 + random_.next_below(3)) * kUnit);
      case 7:
        if (marks.empty()) return;
        held_.emplace_back(range.share(marks.size() - 1), marks.back());
        return;
      default:
        if (held_.empty()) return;
        if (random_.next_below(2) == 0 && (marks.size() + 1) * kUnit <= kCapacity) {
          range.append(held_.front().first);
          marks.push_back(held_.front().second);
        }
        held_.erase(held_.begin());
    }
  }

  void check() const {
    ledger().page_pool().wait_for_ahead();
    const PagePool::Stats stats = ledger().page_pool().stats();
    EXPECT_EQ(stats.used + stats.spare + stats.held, stats.allocated);
    EXPECT_EQ(ledger().used(Tier::kRam), stats.allocated);
    EXPECT_EQ(ledger().used(Tier::kRam, Tag::kKv), stats.used);
    EXPECT_EQ(ledger().page_pool().file_bytes(), stats.allocated);
    EXPECT_LE(stats.allocated, kLimit);
    EXPECT_LE(mappings_of_files(), stats.n_mappings);
    for (size_t i = 0; i < kRanges; ++i) {
      ASSERT_EQ(ranges_[i].committed(), marks_[i].size() * kUnit);
      for (size_t k = 0; k < marks_[i].size(); ++k) {
        uint32_t first = 0, last = 0;
        std::memcpy(&first, ranges_[i].data() + k * kUnit, sizeof first);
        std::memcpy(&last, ranges_[i].data() + (k + 1) * kUnit - sizeof last, sizeof last);
        ASSERT_EQ(first, marks_[i][k]);
        ASSERT_EQ(last, marks_[i][k]);
      }
    }
  }

  void clear() {
    ranges_.clear();
    held_.clear();
  }
  Ledger& ledger() const { return ledger_; }
  int refused() const { return refused_; }

 private:
  static constexpr size_t kRanges = 6;
  static constexpr uint64_t kLimit = 60 * kUnit;

  void grow(size_t i, size_t n) {
    if (n * kUnit > kCapacity) return;
    const size_t before = marks_[i].size();
    try {
      ranges_[i].grow_to(n * kUnit);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kOutOfBudget);
      ++refused_;
      return;
    }
    for (size_t k = before; k < n; ++k) {
      EXPECT_TRUE(all_are(ranges_[i].data() + k * kUnit, kUnit, std::byte{0})) << "fresh pages are empty";
      marks_[i].push_back(0);
      rewrite(i, k);
    }
  }
  void rewrite(size_t i, size_t unit) {
    try {
      ranges_[i].make_private(unit);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kOutOfBudget);
      ++refused_;
      return;
    }
    const uint32_t mark = ++next_mark_;
    std::memcpy(ranges_[i].data() + unit * kUnit, &mark, sizeof mark);
    std::memcpy(ranges_[i].data() + (unit + 1) * kUnit - sizeof mark, &mark, sizeof mark);
    marks_[i][unit] = mark;
  }

  PhiloxStream random_;
  mutable Ledger ledger_{kLimit};
  std::vector<MappedRange> ranges_;
  std::vector<std::vector<uint32_t>> marks_;
  std::vector<std::pair<PageRun, uint32_t>> held_;
  uint32_t next_mark_ = 0;
  int refused_ = 0;
};

TEST(MappedRange, WhereFilesMustBeSmallUnitsAreCopied) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{1 << 16, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  {
    Ledger ledger;
    constexpr size_t kBytes = size_t{1} << 16;
    MappedRange range(ledger, Tag::kKv, kBytes, 8 * kBytes, "range");
    range.grow_to(4 * kBytes);
    EXPECT_EQ(ledger.used(Tier::kRam), 4 * kBytes);
    std::memset(range.data(), 7, 4 * kBytes);
    EXPECT_FALSE(range.share(0));
    range.shrink_to(kBytes);
    EXPECT_EQ(ledger.used(Tier::kRam), kBytes);
    range.grow_to(2 * kBytes);
    EXPECT_EQ(range.data()[0], std::byte{7});
    EXPECT_EQ(range.data()[kBytes], std::byte{0});
  }
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
}

TEST(MappedRange, EveryPageIsAccountedForWhateverHappens) {
  for (const bool deferred : {false, true}) {
    RandomRanges random(deferred ? 1 : 2);
    std::optional<PagePool::Deferral> deferral;
    if (deferred) deferral.emplace(random.ledger().page_pool());
    for (int i = 0; i < 1500; ++i) {
      for (int k = 0; k < 3; ++k) random.step();  // while units are mapped ahead
      random.check();
      if (testing::Test::HasFailure()) FAIL() << "step " << i;
    }
    EXPECT_GT(random.refused(), 0) << "the limit was reached";
    random.clear();
    deferral.reset();
    EXPECT_EQ(random.ledger().used(Tier::kRam), 0u);
    EXPECT_EQ(random.ledger().page_pool().file_bytes(), 0u);
    EXPECT_EQ(mappings_of_files(), 0u);
  }
}

// Ranges belong to one thread each, but the pool, its spares and runs that are held belong to all.
TEST(MappedRange, ThreadsShareOnePool) {
  Ledger ledger(64 * kUnit);
  std::optional<PagePool::Deferral> deferral(ledger.page_pool());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&ledger, t] {
      PhiloxStream random(static_cast<uint64_t>(t));
      for (int i = 0; i < 100; ++i) {
        MappedRange range = make(ledger), other = make(ledger);
        try {
          for (size_t n = 1; n < 12; n += 1 + random.next_below(3)) {
            range.grow_to(n * kUnit);
            range.map_ahead((n + 2) * kUnit);
            std::memset(range.data(), t + 1, range.committed());
          }
          const PageRun run = range.share(0);
          other.append(run);
          EXPECT_TRUE(all_are(other.data(), kUnit, static_cast<std::byte>(t + 1)));
        } catch (const Error& e) {
          EXPECT_EQ(e.code(), ErrorCode::kOutOfBudget);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  deferral.reset();
  EXPECT_EQ(ledger.used(Tier::kRam), 0u);
  EXPECT_EQ(ledger.page_pool().file_bytes(), 0u);
}

TEST(MappedRange, ProcessSizeCountsSharedPagesOnce) {
  if (kThreadSanitizer || kAddressSanitizer) GTEST_SKIP() << "the sanitizers keep memory of their own";
  Ledger ledger;
  constexpr size_t kBig = size_t{1} << 20;
  MappedRange first(ledger, Tag::kKv, kBig, 16 * kBig, "test");
  const uint64_t before = resident_bytes();
  first.grow_to(16 * kBig);
  std::vector<MappedRange> others;
  for (int i = 0; i < 8; ++i) {
    others.emplace_back(ledger, Tag::kKv, kBig, 16 * kBig, "test");
    for (size_t k = 0; k < 16; ++k) others.back().append(first.share(k));
  }
  EXPECT_NEAR(static_cast<double>(resident_bytes() - before), 16.0 * kBig, 2.0 * kBig);
}

}  // namespace
}  // namespace mneme
