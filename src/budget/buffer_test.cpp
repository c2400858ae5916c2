#include "budget/buffer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

#include "base/error.h"
#include "base/test_sanitizer.h"
#include "budget/resident.h"

namespace mneme {
namespace {

TEST(Buffer, IsAlignedZeroedAndCounted) {
  Ledger ledger;
  for (size_t bytes : {size_t{1}, size_t{5000}, size_t{40} << 20}) {
    Buffer buffer(ledger, Tag::kScratch, bytes, "test");
    EXPECT_EQ(reinterpret_cast<size_t>(buffer.data()) % 64, 0u);
    EXPECT_EQ(buffer.size(), bytes);
    EXPECT_GE(ledger.used(Tier::kRam, Tag::kScratch), bytes);
    EXPECT_LE(ledger.used(Tier::kRam, Tag::kScratch), bytes + bytes / 16 + 4096);
    const auto content = buffer.as<uint8_t>();
    EXPECT_TRUE(std::all_of(content.begin(), content.end(), [](uint8_t b) { return b == 0; }));
    Buffer moved = std::move(buffer);
    EXPECT_EQ(buffer.data(), nullptr);  // NOLINT: moved-from state is part of the contract
    moved.data()[bytes - 1] = std::byte{1};
  }
  EXPECT_EQ(ledger.used(Tier::kRam), 0u);
}

TEST(Buffer, RefusedBeforeAllocation) {
  Ledger ledger(1 << 20);
  EXPECT_THROW(Buffer(ledger, Tag::kKv, size_t{1} << 40, "huge"), Error);
}

TEST(Buffer, LedgerAgreesWithResidentSize) {
  if (kThreadSanitizer) GTEST_SKIP() << "the sanitizer keeps memory of its own beside every byte";
  Ledger ledger;
  const uint64_t before = resident_bytes();
  Buffer buffer(ledger, Tag::kScratch, size_t{64} << 20, "test");
  std::fill_n(buffer.data(), buffer.size(), std::byte{7});
  const double grown = static_cast<double>(resident_bytes() - before);
  EXPECT_NEAR(grown, static_cast<double>(ledger.used(Tier::kRam)), 4e6);
}

TEST(GrowingBuffer, KeepsItsAddressAndCountsOnlyWhatIsUsable) {
  Ledger ledger(8 << 20);
  GrowingBuffer buffer(ledger, Tag::kKv, size_t{1} << 30, "context");
  std::byte* const start = buffer.data();
  EXPECT_EQ(ledger.used(Tier::kRam), 0u);
  buffer.grow_to(100000);
  EXPECT_EQ(ledger.used(Tier::kRam), 102400u);
  start[99999] = std::byte{9};
  buffer.grow_to(3 << 20);
  EXPECT_EQ(buffer.data(), start);
  EXPECT_EQ(start[99999], std::byte{9});
  EXPECT_THROW(buffer.grow_to(9 << 20), Error);
  EXPECT_EQ(buffer.committed(), size_t{3} << 20);
  buffer.shrink_to(0);
  EXPECT_EQ(ledger.used(Tier::kRam), 0u);
  buffer.grow_to(100000);
  EXPECT_EQ(start[99999], std::byte{0});
  EXPECT_THROW(buffer.grow_to(size_t{2} << 30), Error);
}

}  // namespace
}  // namespace mneme
