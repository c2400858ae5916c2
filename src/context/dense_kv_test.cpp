#include "context/dense_kv.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"
#include "budget/page_pool.h"
#include "context/kv_example.h"
#include "context/kv_policy.h"
#include "context/kv_storages_example.h"

namespace mneme {
namespace {

void expect_near(const std::vector<float>& out, const std::vector<double>& want, double tolerance) {
  ASSERT_EQ(out.size(), want.size());
  size_t worst = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    if (std::abs(out[i] - want[i]) > std::abs(out[worst] - want[worst])) worst = i;
  }
  EXPECT_NEAR(out[worst], want[worst], tolerance) << "element " << worst;
}

TEST(DenseKv, MatchesTheReferenceForAnySplit) {
  for (const KvShape shape :
       {KvShape{2, 16, 16, 0}, KvShape{1, 20, 12, 0}, KvShape{2, 16, 16, 37}, KvShape{4, 8, 8, 300}}) {
    const KvExample example(shape, 4, 700);
    const auto want = example.reference();
    for (const std::vector<size_t>& chunks : {std::vector<size_t>{64}, {1}, {300, 7, 1}}) {
      Ledger ledger;
      DenseKv store(shape, DType::kF32, 1024, 300, ledger);
      expect_near(example.run(store, chunks), want, 2e-5);
      EXPECT_EQ(store.n_tokens(), 700);
      EXPECT_EQ(store.bytes(), DenseKv::spec(shape, DType::kF32, 1024, 300).bytes(700));
      EXPECT_EQ(ledger.used(Tier::kRam, Tag::kKv), store.bytes());
    }
  }
}

/// Tokens may be appended without queries; what comes behind them sees them all the same.
TEST(DenseKv, TokensWithoutQueriesAreSeenLater) {
  const KvShape shape{2, 16, 16, 0};
  KvExample example(shape, 4, 700);
  for (const char* name : {"f16", "kivi:4", "shadowkv:rank=16,budget=512"}) {
    Ledger ledger;
    const auto with = KvPolicy::parse(name).make_layer(shape, 1024, 300, ledger);
    const auto without = KvPolicy::parse(name).make_layer(shape, 1024, 300, ledger);
    for (const size_t first : {0, 300}) example.feed(*with, first, 300);
    const uint32_t n_heads = std::exchange(example.n_heads, 0);
    for (const size_t first : {0, 300}) example.feed(*without, first, 300);
    example.n_heads = n_heads;
    EXPECT_EQ(example.feed(*without, 600, 100), example.feed(*with, 600, 100)) << name;
  }
}

// f16 keeps 11 bits: scores move by |q||k| 2^-11 / sqrt(D) and values by 2^-11 of their size; bf16 keeps 8 bits.
TEST(DenseKv, HalfPrecisionStaysWithinItsEpsilon) {
  const KvShape shape{2, 32, 32, 0};
  const KvExample example(shape, 4, 300);
  const auto want = example.reference();
  for (const auto& [name, tolerance] : {std::pair("f16", 0.01), std::pair("bf16", 0.08)}) {
    Ledger ledger;
    const auto store = KvPolicy::parse(name).make_layer(shape, 512, 64, ledger);
    expect_near(example.run(*store, {64}), want, tolerance);
  }
}

TEST(DenseKv, DecodeOverManyBlocksIsTheSameOnAnyNumberOfThreads) {
  const KvShape shape{1, 16, 16, 0};
  const KvExample example(shape, 4, 2500);
  const int before = n_threads();
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 3}) {
    set_n_threads(threads);
    Ledger ledger;
    DenseKv store(shape, DType::kF16, 2560, 512, ledger);
    example.feed(store, 0, 2499);
    results.push_back(example.feed(store, 2499, 1));
  }
  set_n_threads(before);
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST(DenseKv, TruncateForgetsAndWindowsRefuseWhatTheyLost) {
  const KvShape full{2, 16, 16, 0}, windowed{2, 16, 16, 64};
  const KvExample example(full, 4, 1500);
  Ledger ledger;
  DenseKv once(full, DType::kF32, 2048, 256, ledger), twice(full, DType::kF32, 2048, 256, ledger);
  const auto want = example.run(once, {100});
  example.feed(twice, 0, 900);
  ASSERT_TRUE(twice.truncate(300));
  EXPECT_EQ(twice.bytes(), DenseKv::spec(full, DType::kF32, 2048, 256).bytes(300));
  const auto out = example.feed(twice, 300, 1200);
  EXPECT_TRUE(std::equal(out.begin(), out.end(), want.begin() + 300 * 64));
  EXPECT_FALSE(twice.truncate(1501));

  DenseKv ring(windowed, DType::kF32, 2048, 256, ledger);
  for (size_t first = 0; first < 1500; first += 250) example.feed(ring, first, 250);
  EXPECT_TRUE(ring.truncate(1450));
  EXPECT_FALSE(ring.truncate(100));
  EXPECT_EQ(ring.n_tokens(), 1450);
}

// A fork has full blocks in the same memory and only the block that is begun of its own; cutting a sequence inside a
// shared block makes that one its own. Neither sees what the other writes.
TEST(DenseKv, ForksShareFullBlocksAndCopyTheBlockBegun) {
  const KvShape shape{2, 16, 16, 0};
  const KvExample example(shape, 4, 1500);
  const auto block = DenseKv::spec(shape, DType::kF16, 2048, 256).bytes(1);
  Ledger ledger;
  DenseKv store(shape, DType::kF16, 2048, 1500, ledger), straight(shape, DType::kF16, 2048, 1500, ledger);
  const auto want = example.feed(straight, 0, 1500);
  example.feed(store, 0, 900);
  const uint64_t before = ledger.used(Tier::kRam);
  const auto copy = store.deep_copy();
  EXPECT_EQ(copy->bytes(), store.bytes());
  EXPECT_EQ(ledger.used(Tier::kRam), before + block);
  auto& fork = static_cast<KvLayer&>(*copy);
  ASSERT_TRUE(fork.truncate(600));
  EXPECT_EQ(ledger.used(Tier::kRam), before + block) << "of block 2 a copy, of block 3 nothing";
  example.feed(fork, 100, 400);  // other tokens from 600 on
  const auto out = example.feed(store, 900, 600);
  EXPECT_TRUE(std::equal(out.begin(), out.end(), want.begin() + 900 * 64));
  ASSERT_TRUE(fork.truncate(512));
  const auto again = example.feed(fork, 512, 988);
  EXPECT_TRUE(std::equal(again.begin(), again.end(), want.begin() + 512 * 64));
}

// A sequence can only be cut inside a shared block when there is room for a copy of it.
TEST(DenseKv, CuttingASharedBlockWithoutRoomIsRefusedWithoutChange) {
  const KvShape shape{2, 16, 16, 0};
  const KvExample example(shape, 4, 600);
  Ledger ledger;
  ledger.page_pool().set_ahead(false);  // spares would be the room
  DenseKv store(shape, DType::kF16, 1024, 600, ledger);
  example.feed(store, 0, 512);
  const auto fork = store.deep_copy();
  ledger.set_limit(Tier::kRam, ledger.used(Tier::kRam));
  EXPECT_FALSE(fork->truncate(300));
  EXPECT_EQ(fork->n_tokens(), 512);
  EXPECT_EQ(fork->bytes(), store.bytes());
  EXPECT_TRUE(fork->truncate(256)) << "nothing is to be copied";
  EXPECT_TRUE(store.truncate(300)) << "nobody else has the block any more";
}

// The attention is the same to the bit with blocks that come as they are needed, in block tables, and all at the start.
TEST(DenseKv, AllStoragesGiveTheSameBitsOverRandomRequests) {
  Ledger ledger;
  EXPECT_EQ(storage_differences(200, ledger), 0u);
  EXPECT_EQ(ledger.page_pool().stats().allocated, 0u);
}

/// Tokens that come one by one find their block mapped, also those behind a prompt that ends with a block.
TEST(DenseKv, GeneratedTokensFindTheirBlockMapped) {
  const KvShape shape{2, 16, 16, 0};
  const KvExample example(shape, 4, 1000);
  for (const bool ahead : {true, false}) {
    Ledger ledger;
    PagePool& pool = ledger.page_pool();
    pool.set_ahead(ahead);
    DenseKv store(shape, DType::kF16, 1024, 300, ledger);
    example.feed(store, 0, 200);
    EXPECT_EQ(ledger.used(Tier::kRam), store.bytes()) << "it is early yet";
    example.feed(store, 200, 56);
    uint64_t needed = 0;  // calls while a token is reserved and computed
    for (size_t t = 256; t < 1000; ++t) {
      pool.wait_for_ahead();
      const uint64_t calls = pool.stats().map_calls, held = store.bytes();
      store.reserve(1);
      if (store.bytes() > held) needed += pool.stats().map_calls - calls;
      example.feed(store, t, 1);
      ASSERT_EQ(ledger.used(Tier::kRam, Tag::kKv), store.bytes());
    }
    EXPECT_EQ(needed, ahead ? 0u : 6u) << "keys and values of three blocks";
    EXPECT_EQ(ledger.used(Tier::kRam), store.bytes()) << "nothing lies ahead of the last block";
    DenseKv cut(shape, DType::kF16, 1024, 300, ledger);
    const uint64_t before = ledger.used(Tier::kRam);
    example.feed(cut, 0, 255);
    example.feed(cut, 255, 1);
    pool.wait_for_ahead();
    EXPECT_EQ(ledger.used(Tier::kRam) - before, cut.bytes() * (ahead ? 2 : 1));
    EXPECT_TRUE(cut.truncate(100));
    EXPECT_EQ(cut.bytes(), DenseKv::spec(shape, DType::kF16, 1024, 300).bytes(100));
  }
}

TEST(DenseKv, SinksStayVisibleBesideTheWindow) {
  const KvShape shape{2, 16, 16, 0};
  const KvExample example(shape, 4, 700);
  // The same attention over a store that holds everything, in double.
  std::vector<double> want(700 * 64);
  for (size_t t = 0; t < 700; ++t) {
    for (size_t h = 0; h < 4; ++h) {
      std::vector<double> p(t + 1, 0.0);
      double sum = 0;
      for (size_t j = 0; j <= t; ++j) {
        if (j >= 5 && j + 100 <= t) continue;
        double dot = 0;
        for (size_t d = 0; d < 16; ++d) {
          dot += static_cast<double>(example.q[(t * 4 + h) * 16 + d]) * example.k[(j * 2 + h / 2) * 16 + d];
        }
        sum += p[j] = std::exp(dot / 4);
      }
      for (size_t j = 0; j <= t; ++j) {
        for (size_t d = 0; d < 16; ++d) want[(t * 4 + h) * 16 + d] += p[j] / sum * example.v[(j * 2 + h / 2) * 16 + d];
      }
    }
  }
  const KvPolicy policy = KvPolicy::parse("window:sink=5,recent=100");
  Ledger ledger;
  const auto chunks = policy.make_layer(shape, 1024, 64, ledger), single = policy.make_layer(shape, 1024, 64, ledger);
  const auto out = example.run(*chunks, {64, 3});
  expect_near(out, want, 0.01);
  EXPECT_EQ(example.run(*single, {1}), out);
  EXPECT_EQ(chunks->bytes(), policy.spec(shape, 1024, 64).bytes(700));
  const auto copy = chunks->deep_copy();
  EXPECT_EQ(copy->bytes(), chunks->bytes());
  // A layer whose own window is smaller never sees the sinks.
  EXPECT_EQ(policy.spec({2, 16, 16, 50}, 1024, 64).bytes(700),
            DenseKv::spec({2, 16, 16, 50}, DType::kF16, 1024, 64).bytes(700));
}

TEST(DenseKv, CopyIsIndependent) {
  const KvShape shape{2, 16, 16, 0};
  const KvExample example(shape, 4, 600);
  Ledger ledger;
  DenseKv store(shape, DType::kF16, 1024, 256, ledger);
  example.feed(store, 0, 300);
  const auto copy = store.deep_copy();
  auto& branch = static_cast<KvLayer&>(*copy);
  example.feed(store, 400, 50);
  const auto a = example.feed(branch, 300, 300);
  DenseKv straight(shape, DType::kF16, 1024, 256, ledger);
  const auto b = example.feed(straight, 0, 600);
  EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin() + 300 * 64));
}

std::vector<std::byte> saved(const std::function<void(StateWriter&)>& save) {
  CountingWriter count;
  save(count);
  std::vector<std::byte> bytes(count.bytes());
  SpanWriter writer(bytes);
  save(writer);
  return bytes;
}

/// Saves what `from` was after n_tokens tokens, through pages and a rest, and loads it into `into`.
void carry_over(const DenseKv& from, int64_t n_tokens, DenseKv& into) {
  const int64_t first = std::max(into.first_page(n_tokens), from.sealed_pages().begin);
  for (int64_t page = first; page < n_tokens / kPageTokens; ++page) {
    const auto bytes = saved([&](StateWriter& out) { from.save_page(page, out); });
    StateReader in(bytes, "page");
    into.load_page(page, in);
  }
  const auto bytes = saved([&](StateWriter& out) { ASSERT_TRUE(from.save_rest(n_tokens, out)); });
  StateReader in(bytes, "rest");
  into.load_rest(in);
}

// Whatever the split into pages and rest, and whether or not a ring has dropped its oldest blocks: what is computed on
// top of a loaded state equals what is computed without a stop, to the bit.
TEST(DenseKv, SavedAndLoadedStatesContinueEqually) {
  for (const KvShape shape :
       {KvShape{2, 16, 16, 0}, KvShape{1, 20, 12, 0}, KvShape{2, 16, 16, 37}, KvShape{4, 8, 8, 300}}) {
    const KvExample example(shape, 4, 2200);
    for (const size_t stop : {1, 255, 256, 700, 1792, 2000}) {
      Ledger ledger;
      DenseKv straight(shape, DType::kF16, 4096, 100, ledger), loaded(shape, DType::kF16, 4096, 64, ledger);
      for (size_t first = 0; first < stop; first += 100)
        example.feed(straight, first, std::min<size_t>(100, stop - first));
      carry_over(straight, static_cast<int64_t>(stop), loaded);
      EXPECT_EQ(loaded.n_tokens(), static_cast<int64_t>(stop));
      EXPECT_EQ(loaded.bytes(), DenseKv::spec(shape, DType::kF16, 4096, 64).bytes(stop));
      for (const size_t n : {1, 60, 60}) {
        EXPECT_EQ(example.feed(straight, static_cast<size_t>(straight.n_tokens()), n),
                  example.feed(loaded, static_cast<size_t>(loaded.n_tokens()), n));
      }
    }
  }
}

TEST(DenseKv, TellsWhatItWasAtEarlierPages) {
  const KvShape shape{2, 16, 16, 0}, windowed{2, 16, 16, 64};
  const KvExample example(shape, 4, 1000);
  Ledger ledger;
  DenseKv store(shape, DType::kF32, 1024, 1000, ledger), earlier(shape, DType::kF32, 1024, 1000, ledger);
  const auto want = example.feed(store, 0, 1000);
  carry_over(store, 512, earlier);
  const auto out = example.feed(earlier, 512, 488);
  EXPECT_TRUE(std::equal(out.begin(), out.end(), want.begin() + 512 * 64));

  DenseKv ring(windowed, DType::kF32, 4096, 64, ledger);
  const KvExample long_example(windowed, 4, 3000);
  for (size_t first = 0; first < 3000; first += 60) long_example.feed(ring, first, 60);
  CountingWriter out_of_reach;
  EXPECT_FALSE(ring.save_rest(300, out_of_reach));
  EXPECT_EQ(out_of_reach.bytes(), 0u);
  EXPECT_EQ(ring.sealed_pages().end, 11);
  EXPECT_GE(ring.sealed_pages().begin, 9);
}

TEST(DenseKv, RefusesStatesThatCannotBe) {
  const KvShape shape{2, 16, 16, 0}, windowed{2, 16, 16, 600};
  const KvExample example(windowed, 4, 1000);
  Ledger ledger;
  DenseKv store(shape, DType::kF16, 1024, 1000, ledger), ring(windowed, DType::kF16, 1024, 1000, ledger);
  example.feed(store, 0, 1000);
  const auto page = saved([&](StateWriter& out) { store.save_page(0, out); });
  const auto rest = saved([&](StateWriter& out) { store.save_rest(1000, out); });
  const auto load = [&](const KvShape& s, uint64_t context,
                        std::vector<std::pair<int64_t, std::vector<std::byte>>> pages,
                        const std::vector<std::byte>& end) {
    DenseKv into(s, DType::kF16, context, 64, ledger);
    for (const auto& [index, bytes] : pages) {
      StateReader in(bytes, "page");
      into.load_page(index, in);
    }
    StateReader in(end, "rest");
    into.load_rest(in);
  };
  EXPECT_NO_THROW(load(shape, 1024, {{0, page}, {1, page}, {2, page}}, rest));
  EXPECT_THROW(load(shape, 1024, {{0, page}, {2, page}}, rest), Error) << "a gap";
  EXPECT_THROW(load(shape, 1024, {{1, page}}, rest), Error) << "not from the first on";
  EXPECT_THROW(load(shape, 1024, {{0, page}, {1, page}}, rest), Error) << "the rest of another moment";
  EXPECT_THROW(load(shape, 512, {{0, page}, {1, page}, {2, page}}, rest), Error) << "too long";
  EXPECT_THROW(load(windowed, 1024, {{2, page}}, rest), Error) << "less than the window";
  EXPECT_NO_THROW(load(windowed, 1024, {{1, page}, {2, page}}, rest));
  EXPECT_THROW(load(windowed, 1024, {{INT64_MAX / 100, page}}, rest), Error);
  auto cut = page;
  cut.pop_back();
  EXPECT_THROW(load(shape, 1024, {{0, cut}}, rest), Error);
  cut.resize(page.size() + 1);
  EXPECT_THROW(load(shape, 1024, {{0, cut}}, rest), Error);
  auto other = rest;
  other[7] = std::byte{0x80};  // a negative number of tokens
  EXPECT_THROW(load(shape, 1024, {{0, page}, {1, page}, {2, page}}, other), Error);
}

TEST(DenseKv, RefusesOverflowAndBudgetWithoutChange) {
  const KvShape shape{2, 16, 16, 0};
  const KvExample example(shape, 4, 600);
  Ledger ledger;
  DenseKv store(shape, DType::kF16, 512, 256, ledger);
  example.feed(store, 0, 500);
  EXPECT_THROW(example.feed(store, 500, 13), Error);
  EXPECT_EQ(store.n_tokens(), 500);
  Ledger tight(40 << 10);
  DenseKv small(shape, DType::kF16, 512, 256, tight);
  example.feed(small, 0, 200);
  EXPECT_THROW(example.feed(small, 200, 100), Error);
  EXPECT_EQ(small.n_tokens(), 200);
  EXPECT_EQ(tight.used(Tier::kRam), small.bytes());
  EXPECT_THROW(KvPolicy::parse("q3"), Error);
}

}  // namespace
}  // namespace mneme
