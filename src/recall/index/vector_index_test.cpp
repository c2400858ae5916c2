#include "recall/index/vector_index.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <limits>

#include "base/atomic_file.h"
#include "base/test_error.h"
#include "recall/index/exact_index.h"
#include "recall/index/hnsw_index.h"
#include "recall/index/index_choice.h"
#include "recall/index/spann_index.h"
#include "recall/index/test_index.h"

namespace mneme::ann {
namespace {

constexpr Metric kMetrics[] = {Metric::kL2, Metric::kInnerProduct, Metric::kCosine};
constexpr IndexKind kKinds[] = {IndexKind::kExact, IndexKind::kHnsw, IndexKind::kSpann};

/// Runs a check on an empty index of every kind and metric. SPANN in f32 without bounds is as exact as its heads allow.
void on_every_index(size_t dimension, const std::function<void(VectorIndex&)>& check) {
  for (IndexKind kind : kKinds) {
    for (Metric metric : kMetrics) {
      SCOPED_TRACE(std::string(index_kind_name(kind)) + " " + std::string(metric_name(metric)));
      TestFolder folder;
      Ledger ledger;
      SpannOptions options;
      options.values = VectorType::kF32;
      options.sync = false;
      const auto index = make_vector_index(kind, ledger, dimension, metric, folder / "index", options);
      check(*index);
      EXPECT_EQ(index->stats().vectors, index->size());
    }
  }
}

double distance_of(Metric metric, std::span<const float> a, std::span<const float> b) {
  double dot = 0, aa = 0, bb = 0, l2 = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    dot += static_cast<double>(a[i]) * b[i];
    aa += static_cast<double>(a[i]) * a[i];
    bb += static_cast<double>(b[i]) * b[i];
    l2 += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
  }
  return metric == Metric::kL2 ? l2 : metric == Metric::kInnerProduct ? -dot : 1 - dot / std::sqrt(aa * bb);
}

TEST(VectorIndex, HitsAreThoseOfTheFormulas) {
  constexpr size_t kDimension = 24, kN = 400;
  const std::vector<float> rows = mixture_rows(kN, kDimension), queries = mixture_rows(10, kDimension, 100000);
  SearchParameters wide;
  wide.k = 7;
  wide.ef = kN;
  wide.lists = kN;
  wide.prune = 1e30f;
  on_every_index(kDimension, [&](VectorIndex& index) {
    index.add(ids_from(1000, kN), rows);
    ASSERT_EQ(index.size(), kN);
    for (size_t q = 0; q < 10; ++q) {
      const auto query = std::span(queries).subspan(q * kDimension, kDimension);
      std::vector<Hit> expected;
      for (size_t i = 0; i < kN; ++i) {
        expected.push_back(
            {1000 + i, static_cast<float>(
                           distance_of(index.metric(), query, std::span(rows).subspan(i * kDimension, kDimension)))});
      }
      std::sort(expected.begin(), expected.end(), [](const Hit& a, const Hit& b) { return a.distance < b.distance; });
      const SearchResult got = index.search(query, wide);
      ASSERT_EQ(got.hits.size(), 7u);
      EXPECT_GT(got.cost.vectors_compared, 0u);
      for (size_t i = 0; i < got.hits.size(); ++i) {
        EXPECT_EQ(got.hits[i].id, expected[i].id);
        EXPECT_NEAR(got.hits[i].distance, expected[i].distance, 1e-4 * (1 + std::abs(expected[i].distance)));
      }
    }
  });
}

TEST(VectorIndex, ReplacesAndRemoves) {
  on_every_index(2, [](VectorIndex& index) {
    const std::vector<float> east = {1, 0}, north = {0, 1};
    const auto ids = [&](std::span<const float> query) {
      SearchParameters parameters;
      parameters.k = 5;
      std::vector<uint64_t> found;
      for (const Hit& hit : index.search(query, parameters).hits) found.push_back(hit.id);
      return found;
    };
    EXPECT_TRUE(ids(east).empty());
    index.add(std::vector<uint64_t>{7, ~uint64_t{0}}, std::vector<float>{1, 0, 0, 1});
    EXPECT_EQ(ids(east), (std::vector<uint64_t>{7, ~uint64_t{0}}));
    EXPECT_EQ(ids(north), (std::vector<uint64_t>{~uint64_t{0}, 7}));
    index.add(std::vector<uint64_t>{7, ~uint64_t{0}}, std::vector<float>{0, 1, 1, 0});  // they change places
    EXPECT_EQ(index.size(), 2u);
    EXPECT_EQ(ids(east), (std::vector<uint64_t>{~uint64_t{0}, 7}));
    EXPECT_EQ(index.remove(std::vector<uint64_t>{7, 8}), 1u);
    EXPECT_EQ(index.remove(std::vector<uint64_t>{7}), 0u);
    EXPECT_EQ(ids(north), (std::vector<uint64_t>{~uint64_t{0}}));
    index.remove(std::vector<uint64_t>{~uint64_t{0}});
    EXPECT_EQ(index.size(), 0u);
    EXPECT_TRUE(ids(east).empty());
    index.add({}, {});
    index.verify();
  });
}

TEST(VectorIndex, TellsWhichVectorItHoldsUnderAnId) {
  constexpr size_t kDimension = 16, kN = 200;
  const std::vector<float> rows = mixture_rows(kN, kDimension), other = mixture_rows(1, kDimension, 100000);
  on_every_index(kDimension, [&](VectorIndex& index) {
    index.add(ids_from(1, kN), rows);
    const auto row = [&](size_t i) { return std::span(rows).subspan(i * kDimension, kDimension); };
    if (index.metric() == Metric::kInnerProduct && index.stats().kind == "spann") {
      EXPECT_EQ(error_of([&] { index.holds(1, row(0)); }), "[compare] expected a distance, found metric ip");
      return;
    }
    for (size_t i = 0; i < kN; ++i) EXPECT_TRUE(index.holds(i + 1, row(i)));
    EXPECT_FALSE(index.holds(kN + 1, row(0)));
    EXPECT_EQ(error_of([&] { index.holds(1, row(0).first(3)); }), "[compare] expected a vector of 16 values, found 3");
    std::vector<float> far(other);
    for (float& x : far) x = -100 * x;
    index.add(ids_from(8, 1), far);
    EXPECT_FALSE(index.holds(8, row(7)));
    EXPECT_TRUE(index.holds(8, far));
  });
}

TEST(VectorIndex, EqualVectorsAreAllFound) {
  on_every_index(8, [](VectorIndex& index) {
    const std::vector<float> rows(300 * 8, 0.5f);
    index.add(ids_from(0, 300), rows);
    SearchParameters parameters;
    parameters.k = 20;
    const auto hits = index.search(std::span(rows).first(8), parameters).hits;
    ASSERT_EQ(hits.size(), 20u);
    for (size_t i = 1; i < hits.size(); ++i) EXPECT_LT(hits[i - 1].id, hits[i].id);
  });
}

TEST(VectorIndex, BadInputIsNamedAndChangesNothing) {
  on_every_index(3, [](VectorIndex& index) {
    index.add(std::vector<uint64_t>{1}, std::vector<float>{1, 2, 2});
    const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
    const auto add = [&](std::vector<uint64_t> ids, std::vector<float> rows) {
      return error_of([&] { index.add(ids, rows); });
    };
    EXPECT_EQ(add({2}, {1, 2}), "[add] expected 1 x 3 values, found 2");
    EXPECT_EQ(add({2, 3}, {1, 0, 0, 1, nan, 0}), "[add] expected finite numbers, found nan at position 1 of vector 3");
    EXPECT_NE(add({2}, {inf, 0, 0}).find("found inf"), std::string::npos);
    EXPECT_NE(add({2}, {1e20f, 0, 0}).find("length below 1e15"), std::string::npos);
    EXPECT_EQ(add({5, 6, 5}, std::vector<float>(9, 1)), "[add] expected each id once, found 5 twice");
    if (index.metric() == Metric::kCosine) {
      EXPECT_EQ(add({2}, {0, 0, 0}), "[add] expected a direction, found only zeros in vector 2");
    }
    EXPECT_EQ(index.size(), 1u);
    const auto search = [&](std::vector<float> query, SearchParameters parameters) {
      return error_of([&] { (void)index.search(query, parameters); });
    };
    EXPECT_EQ(search({1}, {}), "[search] expected a vector of 3 values, found 1");
    EXPECT_NE(search({1, nan, 1}, {}).find("found nan"), std::string::npos);
    SearchParameters none;
    none.k = 0;
    EXPECT_NE(search({1, 1, 1}, none).find("k >= 1"), std::string::npos);
  });
  Ledger ledger;
  EXPECT_NE(error_of([&] { ExactIndex(ledger, 0, Metric::kL2); }).find("dimension of 1 to"), std::string::npos);
}

/// Replaces the content of a file.
void overwrite(const std::string& path, std::string_view bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

/// Every cut and every flipped byte of a file is noticed.
void check_damage(const std::string& path, const std::function<void()>& load) {
  const std::string sound = read_text_file(path);
  const size_t step = std::max<size_t>(1, sound.size() / 120);
  for (size_t at = 0; at < sound.size(); at += at < 80 ? 1 : step) {
    std::string damaged = sound;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x40);
    overwrite(path, damaged);
    EXPECT_NE(error_of(load).find("[read index]"), std::string::npos) << "byte " << at;
    overwrite(path, std::string_view(sound).substr(0, at));
    EXPECT_NE(error_of(load), "no error") << "cut at " << at;
  }
  std::string newer = sound;
  newer[8] = 2;
  overwrite(path, newer);
  EXPECT_NE(error_of(load).find("expected version 1 or older, found 2"), std::string::npos);
  overwrite(path, sound);
  load();
}

TEST(VectorIndex, SavedIndexesComeBackAndDamageIsNoticed) {
  constexpr size_t kDimension = 16, kN = 150;
  const std::vector<float> rows = mixture_rows(kN, kDimension), queries = mixture_rows(5, kDimension, 5000);
  for (Metric metric : kMetrics) {
    TestFolder folder;
    Ledger ledger;
    ExactIndex exact(ledger, kDimension, metric);
    HnswIndex hnsw(ledger, kDimension, metric);
    for (VectorIndex* index : {static_cast<VectorIndex*>(&exact), static_cast<VectorIndex*>(&hnsw)}) {
      index->add(ids_from(50, kN), rows);
      index->remove(std::vector<uint64_t>{60, 61});
    }
    exact.save(folder / "exact");
    hnsw.save(folder / "hnsw");
    const auto exact_again = ExactIndex::load(ledger, folder / "exact");
    const auto hnsw_again = HnswIndex::load(ledger, folder / "hnsw");
    for (size_t q = 0; q < 5; ++q) {
      const auto query = std::span(queries).subspan(q * kDimension, kDimension);
      EXPECT_EQ(exact_again->search(query, {}).hits, exact.search(query, {}).hits);
      EXPECT_EQ(hnsw_again->search(query, {}).hits, hnsw.search(query, {}).hits);
    }
    hnsw_again->add(std::vector<uint64_t>{60}, std::span(rows).first(kDimension));
    EXPECT_EQ(hnsw_again->size(), kN - 1);
    hnsw_again->verify();
    if (metric != Metric::kL2) continue;
    check_damage(folder / "exact", [&] { (void)ExactIndex::load(ledger, folder / "exact"); });
    check_damage(folder / "hnsw", [&] { (void)HnswIndex::load(ledger, folder / "hnsw"); });
    EXPECT_NE(error_of([&] { (void)HnswIndex::load(ledger, folder / "exact"); }).find("index of kind 2, found 1"),
              std::string::npos);
  }
}

TEST(VectorIndex, HnswKeepsItsRecallWhenMostIsReplaced) {
  constexpr size_t kDimension = 32, kN = 3000;
  Ledger ledger;
  ExactIndex exact(ledger, kDimension, Metric::kL2);
  HnswIndex hnsw(ledger, kDimension, Metric::kL2);
  for (size_t round = 0; round < 3; ++round) {  // each replaces all, so the graph is built anew on the way
    const std::vector<float> rows = mixture_rows(kN, kDimension, round * kN);
    exact.add(ids_from(0, kN), rows);
    hnsw.add(ids_from(0, kN), rows);
  }
  EXPECT_EQ(hnsw.size(), kN);
  EXPECT_LT(hnsw.stats().dead_vectors, kN);
  EXPECT_GT(recall_against(exact, hnsw, mixture_rows(50, kDimension, 1000000), {}), 0.97);
}

TEST(VectorIndex, MemoryIsCountedAndRefused) {
  Ledger ledger(1 << 20);
  const std::vector<float> rows = mixture_rows(4000, 128);
  ExactIndex exact(ledger, 128, Metric::kL2);
  EXPECT_NE(error_of([&] { exact.add(ids_from(0, 4000), rows); }), "no error");
  EXPECT_EQ(exact.size(), 0u);
  exact.add(ids_from(0, 1000), std::span(rows).first(128000));
  EXPECT_GE(ledger.used(Tier::kRam, Tag::kIndex), 1000u * 128 * 4);
  EXPECT_EQ(exact.stats().ram_bytes, ledger.used(Tier::kRam, Tag::kIndex));
}

TEST(VectorIndex, AutoPicksBySizeAndMemory) {
  EXPECT_EQ(choose_index_kind(1000, 128, 1 << 30), IndexKind::kExact);
  EXPECT_EQ(choose_index_kind(1'000'000, 128, uint64_t{1} << 30), IndexKind::kHnsw);
  EXPECT_EQ(choose_index_kind(1'000'000, 128, uint64_t{200} << 20), IndexKind::kSpann);
  EXPECT_NE(error_of([] { (void)choose_index_kind(1'000'000, 128, 1 << 20); }).find("for the heads"),
            std::string::npos);
  // Estimates are near what is taken.
  for (IndexKind kind : {IndexKind::kExact, IndexKind::kHnsw}) {
    Ledger ledger;
    const auto index = make_vector_index(kind, ledger, 64, Metric::kL2, "");
    index->add(ids_from(0, 5000), mixture_rows(5000, 64));
    const double taken = static_cast<double>(index->stats().ram_bytes),
                 told = static_cast<double>(index_ram_bytes(kind, 5000, 64));
    EXPECT_LT(taken, 2.2 * told);
    EXPECT_GT(taken, 0.9 * told);
  }
}

}  // namespace
}  // namespace mneme::ann
