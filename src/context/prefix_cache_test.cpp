#include "context/prefix_cache.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/philox.h"
#include "budget/page_pool.h"
#include "context/dense_kv.h"
#include "context/kv_example.h"

namespace mneme {
namespace {

constexpr KvShape kFull{2, 16, 16, 0}, kWindowed{2, 16, 16, 100};

/// A sequence of two layers over the tokens of an example.
struct TestSequence {
  explicit TestSequence(Ledger& ledger)
      : full(kFull, DType::kF16, 4096, 512, ledger), windowed(kWindowed, DType::kF16, 4096, 512, ledger) {}

  std::vector<LayerState*> layers() { return {&full, nullptr, &windowed}; }
  std::vector<float> feed(const KvExample& a, const KvExample& b, size_t n) {
    const size_t first = static_cast<size_t>(full.n_tokens());
    std::vector<float> out = a.feed(full, first, n);
    const std::vector<float> more = b.feed(windowed, first, n);
    out.insert(out.end(), more.begin(), more.end());
    return out;
  }

  DenseKv full, windowed;
};

class PrefixCacheTest : public testing::Test {
 protected:
  PrefixCacheTest() {
    for (size_t i = 0; i < tokens_.size(); ++i) tokens_[i] = static_cast<int32_t>(i * 7 % 1000);
  }
  PrefixCache::Options options() {
    PrefixCache::Options out;
    out.now = [this] { return now_; };
    return out;
  }
  std::span<const int32_t> first(size_t n) const { return std::span(tokens_).first(n); }

  Ledger ledger_;
  int64_t now_ = 100;
  std::vector<int32_t> tokens_ = std::vector<int32_t>(3000);
  KvExample full_{kFull, 4, 3000}, windowed_{kWindowed, 4, 3000};
};

// A sequence that begins with cached pages continues as the one they came from, in full and in windowed layers, and no
// bytes stay behind.
TEST_F(PrefixCacheTest, WhatIsLoadedContinuesAsTheOriginal) {
  {
    PrefixCache cache(ledger_, "model/f16", options());
    TestSequence original(ledger_);
    for (const size_t n : {400, 500, 300}) {
      original.feed(full_, windowed_, n);
      cache.keep("", first(static_cast<size_t>(original.full.n_tokens())), original.layers(), {}, 1000);
    }
    EXPECT_EQ(cache.stats().stored_blocks, 4u);
    EXPECT_LT(ledger_.used(Tier::kRam, Tag::kCache), cache.bytes()) << "the full layer's pages are the sequence's too";
    const PrefixMatch match = cache.match("", first(1200), 1199);
    EXPECT_EQ(match.n_tokens, 1024u);
    EXPECT_EQ(match.stop, MatchStop::kPromptEnds);
    TestSequence again(ledger_);
    match.load(again.layers());
    EXPECT_EQ(again.full.n_tokens(), 1024);
    again.feed(full_, windowed_, 176);
    EXPECT_EQ(again.feed(full_, windowed_, 300), original.feed(full_, windowed_, 300));
  }
  EXPECT_EQ(ledger_.used(Tier::kRam), 0u);
}

// Eight requests with a common beginning of 4096 tokens have it in memory once, in the cache and in all of them, and each only
// its own end; when the first one ends, nothing of that changes; when all have, the cache has it alone.
TEST_F(PrefixCacheTest, SequencesShareTheMemoryOfACommonBeginning) {
  ledger_.page_pool().set_ahead(false);  // only what is used and cached is to be counted
  constexpr size_t kCommon = 4096, kRequests = 8;
  const KvExample example(kFull, 4, 5000);
  std::vector<int32_t> tokens(5000);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i % 1000);
  const uint64_t block = DenseKv::spec(kFull, DType::kF16, 8192, 512).bytes(1);
  PrefixCache cache(ledger_, "model/f16", options());
  std::vector<std::unique_ptr<DenseKv>> requests;
  const auto make = [&]() -> DenseKv& {
    requests.push_back(std::make_unique<DenseKv>(kFull, DType::kF16, 8192, 512, ledger_));
    return *requests.back();
  };
  DenseKv& first = make();
  for (size_t done = 0; done < kCommon; done += 512) example.feed(first, done, 512);
  LayerState* const layer = &first;
  cache.keep("", std::span(tokens).first(kCommon), {&layer, 1}, {}, 1000);
  const uint64_t heads = ledger_.used(Tier::kRam, Tag::kCache);  // tokens and sizes of the cached blocks
  EXPECT_LE(heads, kCommon / 256 * 4096);
  EXPECT_EQ(ledger_.used(Tier::kRam), kCommon / 256 * block + heads);
  const auto want = example.feed(first, kCommon, 300);
  for (size_t i = 1; i < kRequests; ++i) {
    const PrefixMatch match = cache.match("", tokens, kCommon + 10);
    ASSERT_EQ(match.n_tokens, kCommon);
    EXPECT_EQ(match.shared_bytes(), kCommon / 256 * block);
    DenseKv& request = make();
    LayerState* const loaded = &request;
    match.load({&loaded, 1});
    ASSERT_EQ(example.feed(request, kCommon, 300), want);
    EXPECT_EQ(request.bytes(), DenseKv::spec(kFull, DType::kF16, 8192, 512).bytes(kCommon + 300));
  }
  EXPECT_EQ(ledger_.used(Tier::kRam), (kCommon / 256 + kRequests * 2) * block + heads);
  EXPECT_EQ(ledger_.page_pool().file_bytes(), (kCommon / 256 + kRequests * 2) * block);
  EXPECT_EQ(cache.reclaimable(Tier::kRam), 0u) << "others use all of it";
  EXPECT_EQ(cache.reclaim(Tier::kRam, 1), 0u);
  requests.erase(requests.begin());
  EXPECT_EQ(ledger_.used(Tier::kRam, Tag::kKv), (kCommon / 256 + (kRequests - 1) * 2) * block);
  requests.clear();
  EXPECT_EQ(ledger_.used(Tier::kRam, Tag::kKv), 0u);
  EXPECT_EQ(ledger_.used(Tier::kRam, Tag::kCache), cache.bytes());
  EXPECT_EQ(cache.reclaimable(Tier::kRam), cache.bytes());
  EXPECT_GE(cache.reclaim(Tier::kRam, block), block);
}

TEST_F(PrefixCacheTest, SaysWhyItStopped) {
  PrefixCache cache(ledger_, "model/f16", options());
  auto original = std::make_unique<TestSequence>(ledger_);
  EXPECT_EQ(cache.match("", first(600), 599).stop, MatchStop::kNothingCached);
  original->feed(full_, windowed_, 512);
  cache.keep("", first(512), original->layers(), {}, 1000);
  EXPECT_EQ(cache.match("", first(1000), 999).stop, MatchStop::kCacheEnds);
  EXPECT_EQ(cache.match("", first(512), 511).n_tokens, 256u) << "the last token is always computed";
  EXPECT_EQ(cache.match("b", first(600), 599).stop, MatchStop::kNothingCached) << "another tenant";

  std::vector<int32_t> edited(tokens_.begin(), tokens_.begin() + 1000);
  edited[300] = -1;
  const PrefixMatch differs = cache.match("", edited, 999);
  EXPECT_EQ(differs.stop, MatchStop::kTokensDiffer);
  EXPECT_EQ(differs.n_equal, 300u);
  EXPECT_EQ(differs.n_tokens, 256u);

  EXPECT_EQ(cache.reclaim(Tier::kRam, 1), 0u) << "a sequence uses the pages: nothing would come free";
  original.reset();
  cache.reclaim(Tier::kRam, 1);
  const PrefixMatch evicted = cache.match("", first(1000), 999);
  EXPECT_EQ(evicted.stop, MatchStop::kEvicted);
  EXPECT_EQ(evicted.n_tokens, 256u) << "leaves go first";
}

TEST_F(PrefixCacheTest, PinsHoldTimeEndsAndCheapPagesGoFirst) {
  PrefixCache cache(ledger_, "model/f16", options());
  std::vector<std::vector<int32_t>> texts;
  for (int i = 0; i < 4; ++i) texts.push_back(std::vector<int32_t>(256, i));
  const auto keep = [&](int i, const KeepRules& rules, double cost) {
    TestSequence sequence(ledger_);
    sequence.feed(full_, windowed_, 256);
    cache.keep("", texts[static_cast<size_t>(i)], sequence.layers(), rules, cost);
  };
  const auto cached = [&](int i) {
    std::vector<int32_t> longer = texts[static_cast<size_t>(i)];
    longer.push_back(5);
    return cache.match("", longer, 256).n_tokens == 256;
  };
  keep(0, {true, 0}, 1);
  keep(1, {false, 50}, 1e6);
  keep(2, {}, 1000);
  keep(3, {}, 2000);
  const uint64_t one = cache.bytes() / 4;
  EXPECT_EQ(cache.reclaimable(Tier::kRam), 3 * one);
  EXPECT_EQ(cache.reclaim(Tier::kRam, 1), one);
  EXPECT_FALSE(cached(2)) << "the cheapest that may go";
  EXPECT_TRUE(cached(3));
  now_ += 50;
  EXPECT_FALSE(cached(1)) << "its time is over";
  keep(1, {}, 1e6);
  EXPECT_TRUE(cached(1));
  EXPECT_EQ(cache.reclaim(Tier::kRam, 100 * one), 2 * one);
  EXPECT_TRUE(cached(0)) << "pinned";
  cache.unpin("");
  EXPECT_EQ(cache.reclaim(Tier::kRam, 1), one);
  EXPECT_EQ(cache.bytes(), 0u);
}

// Whatever is asked, bytes stay within the limits and what comes back is right: random texts that share beginnings, in
// a budget for a few pages.
TEST_F(PrefixCacheTest, StaysInItsBudgetUnderAnyTraffic) {
  ledger_.page_pool().set_ahead(false);  // only what is used and cached is to be counted
  PrefixCache::Options few = options();
  few.max_bytes = 400 << 10;
  PrefixCache cache(ledger_, "model/f16", few);
  PhiloxStream random(1);
  TestSequence original(ledger_);
  std::vector<std::vector<float>> want;  // outputs of each page of tokens: they depend on positions alone
  for (int i = 0; i < 8; ++i) want.push_back(original.feed(full_, windowed_, 256));
  uint64_t reused = 0;
  ledger_.set_limit(Tier::kRam, ledger_.used(Tier::kRam) + (1 << 20));
  for (int i = 0; i < 200; ++i) {
    const size_t n = 256 * (1 + random.next_u32() % 7);
    const size_t fork = random.next_u32() % 4;
    std::vector<int32_t> text(tokens_.begin(), tokens_.begin() + static_cast<long>(n));
    if (fork > 0) text[n - 1] = -static_cast<int32_t>(fork);
    {
      const PrefixMatch match = cache.match("", text, n - 1);
      reused += match.n_tokens;
      TestSequence sequence(ledger_);
      match.load(sequence.layers());
      ASSERT_EQ(sequence.full.n_tokens(), static_cast<int64_t>(match.n_tokens));
      ASSERT_EQ(sequence.feed(full_, windowed_, 256), want[match.n_tokens / 256]);
      cache.keep("", std::span(text).first(static_cast<size_t>(sequence.full.n_tokens())), sequence.layers(), {}, 1000);
      EXPECT_LE(cache.bytes(), few.max_bytes);
    }
    EXPECT_EQ(ledger_.used(Tier::kRam, Tag::kCache), cache.bytes()) << "nothing else holds blocks";
  }
  EXPECT_GT(reused, 0u);
  EXPECT_GT(cache.stats().evicted_blocks, 0u);
}

TEST_F(PrefixCacheTest, BlocksThatAreNotWhatWasWrittenAreRefused) {
  TestSequence original(ledger_);
  original.feed(full_, windowed_, 256);
  std::vector<int64_t> have(3);
  const PageBlock::Key key{1, 2, 256, first(256)};
  const GrowingBuffer block = PageBlock::make(ledger_, key, original.layers(), have);
  const auto bytes = PageBlock::bytes(block);
  EXPECT_NO_THROW(PageBlock::verify(bytes, key));
  EXPECT_THROW(PageBlock::verify(bytes, {3, 2, 256, first(256)}), Error);
  EXPECT_THROW(PageBlock::verify(bytes, {1, 3, 256, first(256)}), Error);
  EXPECT_THROW(PageBlock::verify(bytes, {1, 2, 512, first(256)}), Error);
  EXPECT_THROW(PageBlock::verify(bytes, {1, 2, 256, std::span(tokens_).subspan(1, 256)}), Error);
  EXPECT_THROW(PageBlock::verify(bytes.first(bytes.size() - 1), key), Error);
  PhiloxStream random(2);
  std::vector<std::byte> copy(bytes.begin(), bytes.end());
  for (int i = 0; i < 500; ++i) {
    const size_t at = i < 64 ? static_cast<size_t>(i) : random.next_u32() % copy.size();
    copy[at] ^= std::byte{1};
    EXPECT_THROW(PageBlock::verify(copy, key), Error) << at;
    copy[at] ^= std::byte{1};
  }
}

}  // namespace
}  // namespace mneme
