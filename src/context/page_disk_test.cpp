#include "context/page_disk.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "context/dense_kv.h"
#include "context/kv_example.h"
#include "context/prefix_cache.h"
#include "context/token_chain.h"

namespace mneme {
namespace {

class PageDiskTest : public testing::Test {
 protected:
  PageDiskTest()
      : folder_((std::filesystem::temp_directory_path() / ("mneme-pages-" + std::to_string(::getpid()))).string()) {
    std::filesystem::remove_all(folder_);
  }
  ~PageDiskTest() override { std::filesystem::remove_all(folder_); }

  std::shared_ptr<const GrowingBuffer> block(char fill, size_t bytes = 3 * 4096) {
    auto out = std::make_shared<GrowingBuffer>(ledger_, Tag::kCache, bytes, "test");
    out->grow_to(bytes);
    std::memset(out->data(), fill, bytes);
    return out;
  }
  static char first_of(const std::shared_ptr<const GrowingBuffer>& block) {
    return block ? static_cast<char>(block->data()[block->committed() - 1]) : '-';
  }
  static bool has(PageTier& tier, uint64_t hash) { return tier.has({&hash, 1})[0]; }
  PrefixCache::Options options(PageTier& disk) {
    PrefixCache::Options out;
    out.tiers = {&disk};
    return out;
  }
  /// The text of one of many sequences.
  static std::vector<int32_t> text(int sequence, size_t n) {
    std::vector<int32_t> out(n);
    for (size_t i = 0; i < n; ++i) out[i] = static_cast<int32_t>(i) + 100000 * sequence;
    return out;
  }

  Ledger ledger_;
  std::string folder_;
};

TEST_F(PageDiskTest, WritesBehindReadsBackAndStaysForTheNextProcess) {
  {
    PageDisk disk(ledger_, folder_);
    disk.put(1, block('a'));
    disk.put(2, block('b', 2 << 20));
    disk.flush();
    EXPECT_EQ(disk.bytes(), (2u << 20) + 3 * 4096);
    EXPECT_EQ(ledger_.used(Tier::kDisk), disk.bytes());
    const auto got = disk.get(std::vector<uint64_t>{2, 1, 3, 1});
    EXPECT_EQ(first_of(got[0]), 'b');
    EXPECT_EQ(first_of(got[1]), 'a');
    EXPECT_EQ(first_of(got[2]), '-');
    EXPECT_EQ(first_of(got[3]), '-') << "nothing behind a gap";
    const std::filesystem::path older = folder_ + "/0000000000000001.page";
    std::filesystem::last_write_time(older, std::filesystem::last_write_time(older) - std::chrono::hours(1));
    std::printf("    %s\n", disk.has_ring() ? "io_uring" : "pread");
  }
  EXPECT_EQ(ledger_.used(Tier::kDisk), 0u);
  PageDisk disk(ledger_, folder_, 2 << 20);
  EXPECT_EQ(disk.bytes(), 2u << 20) << "as much as fits: the newest";
  EXPECT_TRUE(has(disk, 2));
  disk.put(4, block('d'));
  disk.flush();
  EXPECT_FALSE(has(disk, 2)) << "what was not used for longest goes";
  EXPECT_EQ(first_of(disk.get(std::vector<uint64_t>{4})[0]), 'd');
}

TEST_F(PageDiskTest, AFullDiskDropsBlocksAndSaysSo) {
  PageDisk disk(ledger_, folder_);
  const auto before = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  ::getrlimit(RLIMIT_FSIZE, &limit);
  const rlimit full{8192, limit.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &full);
  disk.put(1, block('a'));
  disk.flush();
  ::setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, before);
  EXPECT_NE(disk.trouble().find("File too large"), std::string::npos) << disk.trouble();
  EXPECT_FALSE(has(disk, 1));
  EXPECT_EQ(disk.bytes(), 0u);
  EXPECT_TRUE(std::filesystem::is_empty(folder_)) << "no half files";
  disk.put(1, block('a'));
  disk.flush();
  EXPECT_TRUE(has(disk, 1));
  EXPECT_EQ(disk.trouble(), "");
  ledger_.set_limit(Tier::kDisk, 4096);
  disk.put(2, block('b'));
  disk.flush();
  EXPECT_FALSE(has(disk, 2));
}

/// Sequences of one small layer whose pages go to RAM and disk.
class TieredCacheTest : public PageDiskTest {
 protected:
  std::unique_ptr<DenseKv> store() { return std::make_unique<DenseKv>(kShape, DType::kF16, 2048, 1024, ledger_); }
  /// Keys and values of a text: those of one example, shifted by the sequence.
  static KvExample example(int sequence) {
    KvExample out(kShape, 2, 1100);
    for (float& x : out.k) x += 0.01f * static_cast<float>(sequence);
    return out;
  }
  static std::string bytes_of(const DenseKv& layer) {
    CountingWriter size;
    for (int64_t page = 0; page < layer.sealed_pages().end; ++page) layer.save_page(page, size);
    std::string out(size.bytes(), '\0');
    SpanWriter writer(std::as_writable_bytes(std::span(out)));
    for (int64_t page = 0; page < layer.sealed_pages().end; ++page) layer.save_page(page, writer);
    return out;
  }
  static constexpr KvShape kShape{1, 16, 16, 0};
};

// A prefix that was seen once comes back from disk although it was evicted at once, in this process and in the next
// one.
TEST_F(TieredCacheTest, AFirstSeenPrefixSurvivesImmediateEviction) {
  const auto tokens = text(0, 1024);
  std::string original;
  {
    PageDisk disk(ledger_, folder_);
    PrefixCache cache(ledger_, "model/f16", options(disk));
    {
      const auto layer = store();
      example(0).feed(*layer, 0, 1024);
      LayerState* layers[] = {layer.get()};
      cache.keep("t", tokens, layers, {}, 1000);
      original = bytes_of(*layer);
    }
    cache.reclaim(Tier::kRam, ~uint64_t{0});  // blocks on their way to the disk stay until they are there
    disk.flush();
    cache.reclaim(Tier::kRam, ~uint64_t{0});
    EXPECT_EQ(cache.bytes(), 0u);
    const PrefixMatch match = cache.match("t", tokens, 1024);
    EXPECT_EQ(match.n_tokens, 1024u);
    EXPECT_EQ(cache.stats().lower_blocks, 4u);
  }
  PageDisk disk(ledger_, folder_);
  PrefixCache cache(ledger_, "model/f16", options(disk));
  const PrefixMatch match = cache.match("t", tokens, 1024);
  const auto loaded = store();
  LayerState* into[] = {loaded.get()};
  match.load(into);
  EXPECT_EQ(bytes_of(*loaded), original);
  EXPECT_EQ(cache.match("another", tokens, 1024).n_tokens, 0u);
  PrefixCache other_policy(ledger_, "model/f32", options(disk));
  EXPECT_EQ(other_policy.match("t", tokens, 1024).n_tokens, 0u) << "compressed never passes for dense";
}

// What came back from disk is a copy, until a sequence that begins so keeps its own pages in its place: then the cache and
// that sequence have them in the same memory.
TEST_F(TieredCacheTest, WhatCameBackIsSharedFromTheNextSequenceOn) {
  const auto tokens = text(0, 512);
  PageDisk disk(ledger_, folder_);
  {
    PrefixCache cache(ledger_, "model/f16", options(disk));
    const auto layer = store();
    example(0).feed(*layer, 0, 512);
    LayerState* layers[] = {layer.get()};
    cache.keep("", tokens, layers, {}, 1000);
    disk.flush();
  }
  PrefixCache cache(ledger_, "model/f16", options(disk));
  const auto load = [&](LayerState& into) {
    LayerState* layers[] = {&into};
    cache.match("", tokens, 512).load(layers);
  };
  const auto first = store(), second = store();
  load(*first);
  const uint64_t one = first->bytes();
  EXPECT_GE(ledger_.used(Tier::kRam), 2 * one);
  LayerState* layers[] = {first.get()};
  cache.keep("", tokens, layers, {}, 1000);
  disk.flush();
  EXPECT_LE(ledger_.used(Tier::kRam), one + 2 * 4096);
  load(*second);
  EXPECT_LE(ledger_.used(Tier::kRam), one + 2 * 4096);
  EXPECT_EQ(bytes_of(*second), bytes_of(*first));
}

// A hundred sequences through RAM for a few and disk for all: whatever comes back is what was written for these tokens.
TEST_F(TieredCacheTest, AHundredSequencesComeBackRight) {
  PageDisk disk(ledger_, folder_);
  PrefixCache::Options few = options(disk);
  few.max_bytes = 600 << 10;
  PrefixCache cache(ledger_, "model/f16", few);
  std::vector<std::string> want;
  for (int i = 0; i < 100; ++i) {
    const auto layer = store();
    example(i).feed(*layer, 0, 512);
    LayerState* layers[] = {layer.get()};
    cache.keep("", text(i, 512), layers, {}, 1000);
    want.push_back(bytes_of(*layer));
    if (i % 10 == 9) disk.flush();  // blocks that wait to be written cannot be evicted
  }
  EXPECT_LE(cache.bytes(), few.max_bytes);
  size_t n_back = 0;
  for (int round = 0; round < 2; ++round) {
    for (int i = 99; i >= 0; --i) {
      const PrefixMatch match = cache.match("", text(i, 512), 512);
      if (match.n_tokens == 0) continue;
      ASSERT_EQ(match.n_tokens, 512u) << i;
      const auto layer = store();
      LayerState* into[] = {layer.get()};
      match.load(into);
      ASSERT_EQ(bytes_of(*layer), want[static_cast<size_t>(i)]) << i;
      ++n_back;
    }
  }
  EXPECT_EQ(n_back, 200u);
  EXPECT_GT(cache.stats().lower_blocks, 100u);
}

TEST_F(TieredCacheTest, DamagedMissingAndForeignFilesAreNotUsed) {
  const auto tokens = text(0, 1024);
  const auto original = store();
  example(0).feed(*original, 0, 1024);
  LayerState* layers[] = {original.get()};
  {
    PageDisk disk(ledger_, folder_);
    PrefixCache cache(ledger_, "model/f16", options(disk));
    cache.keep("", tokens, layers, {}, 1000);
  }
  const auto chain = token_chain("model/f16/", tokens);
  const auto path = [&](size_t page) { return folder_ + "/" + fmt::format("{:016x}.page", chain[page + 1]); };
  ASSERT_TRUE(std::filesystem::exists(path(2)));
  std::fstream(path(2), std::ios::in | std::ios::out | std::ios::binary).seekp(4000).put('!');
  std::ofstream(folder_ + "/0123456789abcdef.page") << "short";
  PageDisk disk(ledger_, folder_);
  {
    PrefixCache cache(ledger_, "model/f16", options(disk));
    const PrefixMatch match = cache.match("", tokens, 1024);
    EXPECT_EQ(match.n_tokens, 512u);
    EXPECT_EQ(match.stop, MatchStop::kUnreadable);
    EXPECT_FALSE(std::filesystem::exists(path(2))) << "a bad file goes";
    cache.keep("", tokens, layers, {}, 1000);  // written again
    disk.flush();
  }
  std::filesystem::copy_file(path(0), path(1), std::filesystem::copy_options::overwrite_existing);
  PrefixCache cache(ledger_, "model/f16", options(disk));
  EXPECT_EQ(cache.match("", tokens, 1024).n_tokens, 256u) << "a block of other tokens";
  std::filesystem::remove_all(folder_);
  PrefixCache again(ledger_, "model/f16", options(disk));
  const PrefixMatch gone = again.match("", tokens, 1024);
  EXPECT_EQ(gone.n_tokens, 0u);
  EXPECT_EQ(gone.stop, MatchStop::kUnreadable);
}

}  // namespace
}  // namespace mneme
