#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/test_error.h"
#include "context/kv_example.h"
#include "context/kv_policy.h"
#include "context/merged_kv.h"

namespace mneme {
namespace {

constexpr const char* kPolicies[] = {"f16",  "window:sink=5,recent=100", "kivi:2", "think:0.5+kivi:4", "bfp:4",
                                     "mikv", "h2o:0.25",                 "token:3", "shadowkv:rank=24,fit=256,budget=64",
                                     "shadowkv:rank=1000,fit=512,budget=5%,values=disk",
                                     "instinfer:density=1/4,channels=32,residual=16", "instinfer:density=1"};

class Bytes : public StateWriter {
 public:
  void write(std::span<const std::byte> bytes) override { data.insert(data.end(), bytes.begin(), bytes.end()); }
  std::vector<std::byte> data;
};

/// What a state is saved as.
struct Saved {
  int64_t first = 0;
  std::vector<std::vector<std::byte>> pages;
  std::vector<std::byte> rest;

  explicit Saved(const LayerState& state) {
    const PageRange range = state.sealed_pages();
    first = std::max(range.begin, state.first_page(state.n_tokens()));
    for (int64_t page = first; page < range.end; ++page) {
      Bytes bytes;
      state.save_page(page, bytes);
      pages.push_back(bytes.data);
    }
    Bytes bytes;
    EXPECT_TRUE(state.save_rest(state.n_tokens(), bytes));
    rest = bytes.data;
  }
  void load(LayerState& state) const {
    int64_t page = first;
    for (const auto& bytes : pages) {
      StateReader reader(bytes, "page");
      state.load_page(page++, reader);
    }
    StateReader reader(rest, "rest");
    state.load_rest(reader);
  }
};

TEST(SavedKv, LoadedStatesGoOnAsIfNothingHadHappened) {
  const KvShape shape{2, 64, 64, 0};
  const KvExample example(shape, 4, 900);
  for (const char* policy : kPolicies) {
    for (const size_t n : {0u, 50u, 256u, 640u}) {
      SCOPED_TRACE(std::string(policy) + " after " + std::to_string(n));
      Ledger ledger;
      const auto store = KvPolicy::parse(policy).make_layer(shape, 1024, 128, ledger);
      const auto loaded = KvPolicy::parse(policy).make_layer(shape, 1024, 128, ledger);
      for (size_t first = 0; first < n; first += 50) example.feed(*store, first, std::min<size_t>(50, n - first));
      Saved(*store).load(*loaded);
      EXPECT_EQ(loaded->n_tokens(), store->n_tokens());
      EXPECT_EQ(loaded->bytes(), store->bytes());
      for (size_t first = n; first < n + 200; first += 100) {
        KvExample next = example;
        if (first > n) next.role = TokenRole::kGenerated;
        EXPECT_EQ(next.feed(*loaded, first, 100), next.feed(*store, first, 100));
      }
    }
  }
}

TEST(SavedKv, MergedLayersComeBackTogether) {
  const KvShape shape{2, 64, 64, 0};
  const KvExample a(shape, 4, 900);
  const KvPolicy policy = KvPolicy::parse("minicache+kivi:4");
  Ledger ledger;
  const auto make = [&] {
    std::shared_ptr<MergedPair> pair;
    auto lower = policy.make_layer(shape, 1024, 128, ledger, {KvPlace::Role::kLower, &pair});
    auto upper = policy.make_layer(shape, 1024, 128, ledger, {KvPlace::Role::kUpper, &pair});
    return std::pair(std::move(lower), std::move(upper));
  };
  const auto store = make(), loaded = make();
  for (size_t first = 0; first < 600; first += 100) {
    a.feed(*store.first, first, 100);
    a.feed(*store.second, first + 100, 100);
  }
  Saved(*store.first).load(*loaded.first);
  EXPECT_THROW(loaded.first->reserve(1), Error);  // without the blocks of the pair
  Saved(*store.second).load(*loaded.second);
  for (size_t first = 600; first < 800; first += 100) {
    EXPECT_EQ(a.feed(*loaded.first, first, 100), a.feed(*store.first, first, 100));
    EXPECT_EQ(a.feed(*loaded.second, first + 100, 100), a.feed(*store.second, first + 100, 100));
  }
}

// Whatever a file says, nothing but an Error may come of it; the sanitizers watch the rest.
TEST(SavedKv, DamagedStatesAreRefusedOrHarmless) {
  const KvShape shape{2, 32, 32, 0};
  const KvExample example(shape, 4, 400);
  PhiloxStream random(17);
  for (const char* policy : kPolicies) {
    SCOPED_TRACE(policy);
    Ledger ledger;
    const auto store = KvPolicy::parse(policy).make_layer(shape, 512, 128, ledger);
    example.run(*store, {100});
    const Saved saved(*store);
    for (int i = 0; i < 40; ++i) {
      Saved damaged = saved;
      // The heads of rests are where lengths and counts are; elsewhere only numbers change.
      const size_t at = i % 2 == 0 ? random.next_below(40) : random.next_below(static_cast<uint32_t>(damaged.rest.size()));
      if (i % 5 == 0) {
        damaged.rest.resize(at);
      } else {
        damaged.rest[at] ^= static_cast<std::byte>(1u << random.next_below(8));
      }
      const auto fresh = KvPolicy::parse(policy).make_layer(shape, 512, 128, ledger);
      try {
        damaged.load(*fresh);
        if (fresh->n_tokens() < 500) example.feed(*fresh, 0, 10);
      } catch (const Error&) {
      }
    }
  }
}

}  // namespace
}  // namespace mneme
