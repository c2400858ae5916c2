#include "recall/index/spann_index.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>

#include "base/atomic_file.h"
#include "base/parallel.h"
#include "base/test_error.h"
#include "context/async_reader.h"
#include "recall/index/exact_index.h"
#include "recall/index/test_index.h"

namespace mneme::ann {
namespace {

constexpr size_t kDimension = 32;

SpannOptions quick(VectorType values = VectorType::kF32) {
  SpannOptions options;
  options.values = values;
  options.sync = false;
  return options;
}

SearchParameters all_lists() {
  SearchParameters parameters;
  parameters.lists = 100000;
  parameters.prune = 1e30f;
  return parameters;
}

/// A SPANN index built at once, and the exact one beside it.
struct Pair {
  Pair(size_t n, const SpannOptions& options, Metric metric = Metric::kL2)
      : exact(ledger, kDimension, metric),
        spann(SpannIndex::create(ledger, folder / "index", kDimension, metric, options)) {
    const std::vector<float> rows = mixture_rows(n, kDimension);
    add(ids_from(0, n), rows);
    spann->save(folder / "index");
  }
  void add(std::span<const uint64_t> ids, std::span<const float> rows) {
    exact.add(ids, rows);
    spann->add(ids, rows);
  }
  void reopen(const SpannOptions& options = quick()) {
    spann.reset();
    spann = SpannIndex::open(ledger, folder / "index", options);
  }
  TestFolder folder;
  Ledger ledger;
  ExactIndex exact;
  std::unique_ptr<SpannIndex> spann;
};

const std::vector<float>& questions() {
  static const std::vector<float> rows = mixture_rows(100, kDimension, uint64_t{1} << 33);
  return rows;
}

TEST(SpannIndex, ReadingEveryListIsExact) {
  for (Metric metric : {Metric::kL2, Metric::kInnerProduct, Metric::kCosine}) {
    Pair pair(3000, quick(), metric);
    EXPECT_EQ(recall_against(pair.exact, *pair.spann, questions(), all_lists()), 1.0);
    pair.spann->verify();
    pair.reopen();
    EXPECT_EQ(recall_against(pair.exact, *pair.spann, questions(), all_lists()), 1.0);
  }
}

TEST(SpannIndex, AFewListsFindNearlyAll) {
  for (VectorType values : {VectorType::kF32, VectorType::kF16, VectorType::kI8}) {
    Pair pair(6000, quick(values));
    SearchParameters parameters;
    parameters.lists = 16;
    SearchCost cost;
    EXPECT_GT(recall_against(pair.exact, *pair.spann, questions(), parameters, &cost),
              values == VectorType::kI8 ? 0.93 : 0.95);
    EXPECT_LT(cost.vectors_compared, 100u * 6000 / 5);
    EXPECT_LE(cost.lists_read, 1600u);
    const IndexStats stats = pair.spann->stats();
    EXPECT_EQ(stats.lists_over_limit, 0u);
    EXPECT_LE(stats.copies, 8.0);
    EXPECT_NEAR(static_cast<double>(stats.heads), 6000.0 / 8, 150);
  }
}

TEST(SpannIndex, CostIsWhatWasRead) {
  Pair pair(3000, quick(VectorType::kF16));
  SearchParameters few = all_lists();
  few.lists = 5;
  const SearchResult result = pair.spann->search(std::span(questions()).first(kDimension), few);
  EXPECT_EQ(result.cost.lists_read, 5u);
  EXPECT_EQ(result.cost.bytes_read % kPageBytes, 0u);
  const SearchResult all = pair.spann->search(std::span(questions()).first(kDimension), all_lists());
  EXPECT_EQ(all.cost.bytes_read, pair.spann->stats().disk_bytes);
  EXPECT_EQ(all.cost.vectors_compared - all.cost.heads_visited, 3000u);  // each once, however many copies
}

TEST(SpannIndex, CopiesByTheClosureRuleRaiseRecall) {
  SpannOptions single = quick();
  single.closure.copies = 1;
  Pair without(4000, single), with(4000, quick());
  SearchParameters parameters;
  parameters.lists = 3;
  parameters.prune = 1e30f;
  const double alone = recall_against(without.exact, *without.spann, questions(), parameters);
  const double closure = recall_against(with.exact, *with.spann, questions(), parameters);
  EXPECT_EQ(without.spann->stats().copies, 1.0);
  EXPECT_GT(closure, alone + 0.03) << alone;
}

TEST(SpannIndex, PruningSavesReadsWhereTheQueryIsNearAHead) {
  Pair pair(5000, quick());
  SearchParameters fixed, pruned;
  fixed.lists = pruned.lists = 64;
  fixed.prune = 1e30f;
  SearchCost fixed_cost, pruned_cost;
  const double all = recall_against(pair.exact, *pair.spann, questions(), fixed, &fixed_cost);
  const double fewer = recall_against(pair.exact, *pair.spann, questions(), pruned, &pruned_cost);
  EXPECT_GT(fewer, all - 0.03);
  EXPECT_LT(pruned_cost.bytes_read, fixed_cost.bytes_read * 8 / 10);
}

TEST(SpannIndex, ReadsWithoutIoUringAreTheSame) {
  Pair pair(3000, quick());
  const auto query = std::span(questions()).first(kDimension);
  const SearchResult ring = pair.spann->search(query, {});
  AsyncReader::refuse_ring(true);
  pair.reopen();
  const SearchResult plain = pair.spann->search(query, {});
  AsyncReader::refuse_ring(false);
  EXPECT_EQ(ring.hits, plain.hits);
  EXPECT_EQ(ring.cost.bytes_read, plain.cost.bytes_read);
}

TEST(SpannIndex, OneThreadAndOneSeedGiveTheSameBytes) {
  const int threads = n_threads();
  set_n_threads(1);
  Pair a(2000, quick()), b(2000, quick());
  set_n_threads(threads);
  for (const char* name : {"index/heads", "index/postings"}) {
    EXPECT_EQ(read_text_file(a.folder / name), read_text_file(b.folder / name)) << name;
  }
}

TEST(SpannIndex, GrowsFromNothingBySplits) {
  SpannOptions options = quick();
  options.pending_bytes = 100 << 10;
  Pair pair(100, options);  // a dozen heads
  const std::vector<float> rows = mixture_rows(6000, kDimension, 100);
  for (size_t i = 0; i < 6000; i += 500) {
    pair.add(ids_from(100 + i, 500), std::span(rows).subspan(i * kDimension, 500 * kDimension));
    EXPECT_EQ(pair.spann->size(), 600 + i);
  }
  pair.spann->verify();
  EXPECT_EQ(recall_against(pair.exact, *pair.spann, questions(), all_lists()), 1.0);  // with what is still pending
  pair.spann->save(pair.folder / "index");
  const IndexStats stats = pair.spann->stats();
  EXPECT_GT(stats.splits, 20u);
  EXPECT_EQ(stats.lists_over_limit, 0u);
  EXPECT_EQ(stats.pending_vectors, 0u);
  SearchParameters parameters;
  parameters.lists = 16;
  EXPECT_GT(recall_against(pair.exact, *pair.spann, questions(), parameters), 0.95);
  pair.spann->verify();
  pair.reopen();
  EXPECT_EQ(recall_against(pair.exact, *pair.spann, questions(), all_lists()), 1.0);
}

TEST(SpannIndex, RecallHoldsWhenAThirdIsReplaced) {
  SpannOptions options = quick(VectorType::kI8);
  options.pending_bytes = 64 << 10;
  Pair pair(6000, options);
  SearchParameters parameters;
  parameters.lists = 12;
  const double before = recall_against(pair.exact, *pair.spann, questions(), parameters);
  const std::vector<float> rows = mixture_rows(2000, kDimension, 50000);
  for (size_t i = 0; i < 2000; i += 100) {
    const auto old = ids_from(3 * i, 200), fresh = ids_from(100000 + i, 100);
    EXPECT_EQ(pair.exact.remove(old), pair.spann->remove(old));
    pair.add(fresh, std::span(rows).subspan(i * kDimension, 100 * kDimension));
  }
  EXPECT_EQ(pair.spann->size(), pair.exact.size());
  pair.spann->save(pair.folder / "index");
  pair.spann->verify();
  EXPECT_GT(recall_against(pair.exact, *pair.spann, questions(), parameters), before - 0.02);
  EXPECT_LT(pair.spann->stats().dead_vectors, pair.spann->size() / 4);
  for (const Hit& hit : pair.spann->search(std::span(questions()).first(kDimension), all_lists()).hits) {
    EXPECT_TRUE(hit.id >= 100000 || hit.id % 300 >= 200) << hit.id;
  }
}

TEST(SpannIndex, ListsThatLoseNearlyAllAreDissolved) {
  Pair pair(4000, quick());
  std::vector<uint64_t> gone;
  for (uint64_t id = 0; id < 4000; ++id) {
    if (id % 16 != 0) gone.push_back(id);
  }
  pair.exact.remove(gone);
  EXPECT_EQ(pair.spann->remove(gone), gone.size());
  const uint64_t heads = pair.spann->stats().heads;
  pair.spann->save(pair.folder / "index");
  const IndexStats stats = pair.spann->stats();
  EXPECT_GT(stats.merges, 100u);
  EXPECT_LT(stats.heads, heads / 2);
  EXPECT_EQ(stats.dead_vectors, 0u);
  pair.spann->verify();
  EXPECT_EQ(recall_against(pair.exact, *pair.spann, questions(), all_lists()), 1.0);
  pair.spann->remove(ids_from(0, 4000));
  pair.spann->save(pair.folder / "index");
  pair.spann->verify();
  pair.reopen();
  EXPECT_EQ(pair.spann->size(), 0u);
  pair.spann->add(ids_from(0, 100), mixture_rows(100, kDimension));
  EXPECT_EQ(pair.spann->search(mixture_rows(1, kDimension), {}).hits.front().id, 0u);
}

TEST(SpannIndex, LogsAreReplayed) {
  Pair pair(1000, quick());
  const std::vector<float> rows = mixture_rows(50, kDimension, 7000);
  pair.add(ids_from(5000, 50), rows);
  pair.exact.remove(ids_from(0, 20));
  pair.spann->remove(ids_from(0, 20));
  for (int again = 0; again < 2; ++again) {
    pair.reopen();
    EXPECT_EQ(pair.spann->size(), 1030u);
    EXPECT_EQ(recall_against(pair.exact, *pair.spann, questions(), all_lists()), 1.0);
  }
  pair.spann->verify();
}

TEST(SpannIndex, DamageIsNamed) {
  Pair pair(500, quick());
  pair.spann->add(ids_from(9000, 3), mixture_rows(3, kDimension));
  pair.spann.reset();
  const auto damage = [&](const char* name, size_t at) {
    const std::string path = pair.folder / (std::string("index/") + name);
    const std::string sound = read_text_file(path);
    std::string bad = sound;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bad;
    const std::string message = error_of([&] { SpannIndex::open(pair.ledger, pair.folder / "index")->verify(); });
    std::ofstream(path, std::ios::binary | std::ios::trunc) << sound;
    return message;
  };
  EXPECT_NE(damage("postings", 5000).find("[read list] expected the checksum of list"), std::string::npos);
  EXPECT_NE(damage("heads", 3).find("expected a vector index"), std::string::npos);
  EXPECT_NE(damage("heads", 8000).find("the content's checksum"), std::string::npos);
  EXPECT_NE(damage("log.1", 20).find("[read log]"), std::string::npos);
  std::filesystem::resize_file(pair.folder / "index/postings", kPageBytes);
  EXPECT_NE(error_of([&] { (void)SpannIndex::open(pair.ledger, pair.folder / "index"); }).find("in 1 pages"),
            std::string::npos);
}

TEST(SpannIndex, OneOwnerAtATime) {
  Pair pair(100, quick());
  EXPECT_NE(error_of([&] { (void)SpannIndex::open(pair.ledger, pair.folder / "index"); }).find("found another process"),
            std::string::npos);
  EXPECT_NE(
      error_of([&] { (void)SpannIndex::create(pair.ledger, pair.folder / "index", 3, Metric::kL2); }).find("found one"),
      std::string::npos);
  EXPECT_NE(error_of([&] { pair.spann->save("elsewhere"); }).find("copy the folder"), std::string::npos);
  EXPECT_NE(error_of([&] { (void)SpannIndex::open(pair.ledger, pair.folder / "nothing"); }), "no error");
}

TEST(SpannIndex, InnerProductRefusesRowsBeyondItsRadius) {
  Pair pair(500, quick(), Metric::kInnerProduct);
  const std::string message =
      error_of([&] { pair.spann->add(ids_from(900, 1), std::vector<float>(kDimension, 100.0f)); });
  EXPECT_NE(message.find("[add] expected a length of at most"), std::string::npos);
  EXPECT_EQ(pair.spann->size(), 500u);
}

}  // namespace
}  // namespace mneme::ann
