#include "recall/index/head_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>

#include "base/mapped_file.h"
#include "base/test_error.h"
#include "recall/index/test_index.h"

namespace mneme::ann {
namespace {

constexpr size_t kDimension = 48;

/// Clumps far apart, each much denser than the distance to the next, in order of clumps: what graphs are bad at.
std::vector<float> clumps(size_t n) {
  MixtureOptions options;
  options.dimension = kDimension;
  options.modes = 60;
  options.least_spread = 0.01f;
  options.most_spread = 0.2f;
  options.centre_scale = 2;
  std::vector<float> rows(n * kDimension);
  VectorMixture(options).rows(0, rows);
  return rows;
}

std::set<uint32_t> nearest_by_comparing(const HeadTable& heads, std::span<const float> query, size_t k) {
  std::vector<std::pair<float, uint32_t>> all;
  std::vector<float> row(query.size());
  for (uint32_t node = 0; node < heads.size(); ++node) {
    if (heads.removed(node)) continue;
    heads.row(node, row);
    float sum = 0;
    for (size_t j = 0; j < row.size(); ++j) sum += (row[j] - query[j]) * (row[j] - query[j]);
    all.emplace_back(sum, node);
  }
  std::sort(all.begin(), all.end());
  std::set<uint32_t> nodes;
  for (size_t i = 0; i < std::min(k, all.size()); ++i) nodes.insert(all[i].second);
  return nodes;
}

/// Part of the k nearest that a search finds, over queries that are in the table or near it.
double found(const HeadTable& heads, std::span<const float> queries, size_t k, uint64_t* compared = nullptr) {
  size_t right = 0, wanted = 0;
  std::vector<HeadHit> hits;
  for (size_t at = 0; at < queries.size(); at += 7 * kDimension) {
    const auto query = queries.subspan(at, kDimension);
    const uint64_t n = heads.search(query, k, hits);
    if (compared != nullptr) *compared = std::max(*compared, n);
    const std::set<uint32_t> want = nearest_by_comparing(heads, query, k);
    for (const HeadHit& hit : hits) right += want.contains(hit.node) ? 1 : 0;
    wanted += want.size();
  }
  return static_cast<double>(right) / static_cast<double>(wanted);
}

TEST(HeadTable, FindsTheNearestAmongClumps) {
  const std::vector<float> rows = clumps(4000);
  Ledger ledger;
  HeadTable heads(ledger, kDimension);
  heads.add(std::span(rows).first(200 * kDimension));
  EXPECT_EQ(found(heads, rows, 8), 1);  // few are compared one by one
  for (size_t at = 200; at < 4000; at += 100) heads.add(std::span(rows).subspan(at * kDimension, 100 * kDimension));
  ASSERT_EQ(heads.size(), 4000u);
  uint64_t compared = 0;
  EXPECT_GT(found(heads, rows, 8, &compared), 0.98);
  EXPECT_LT(compared, 4000u / 2);
  EXPECT_LE(heads.bytes(), HeadTable::bytes_of(4000, kDimension) * 5 / 4 + (256 << 10));
  EXPECT_EQ(ledger.used(Tier::kRam, Tag::kIndex), heads.bytes());
}

TEST(HeadTable, RemovedHeadsAreNotFoundUntilRestored) {
  const std::vector<float> rows = clumps(600);
  Ledger ledger;
  HeadTable heads(ledger, kDimension);
  heads.add(rows);
  for (uint32_t node = 0; node < 600; node += 2) heads.remove(node);
  heads.remove(0);  // twice is once
  EXPECT_EQ(heads.n_removed(), 300u);
  std::vector<HeadHit> hits;
  for (uint32_t node = 0; node < 600; ++node) {
    heads.search(std::span(rows).subspan(node * kDimension, kDimension), 1, hits);
    ASSERT_EQ(hits.size(), 1u);
    EXPECT_FALSE(heads.removed(hits[0].node));
    if (node % 2 == 1) {
      EXPECT_NEAR(hits[0].distance, 0, 1e-4);
    }
  }
  heads.restore(10);
  heads.search(std::span(rows).subspan(10 * kDimension, kDimension), 1, hits);
  EXPECT_NEAR(hits[0].distance, 0, 1e-4);
  heads.blot_out(2);
  std::vector<float> row(kDimension, 1);
  heads.row(2, row);
  EXPECT_EQ(row, std::vector<float>(kDimension, 0.0f));
}

TEST(HeadTable, RenewedCellsForgetWhereHeadsWere) {
  std::vector<float> rows = clumps(1000);
  std::fill_n(rows.begin() + 500 * static_cast<ptrdiff_t>(kDimension), kDimension, 40.0f);  // a cell of its own
  Ledger ledger;
  HeadTable heads(ledger, kDimension);
  heads.add(rows);
  heads.set_row(500, std::span(rows).first(kDimension));
  TestFolder folder;
  const auto holds_it = [&](const std::string& name) {
    IndexFileWriter out(folder / name, {IndexFileKind::kSpann, Metric::kL2, kDimension});
    heads.write(out);
    out.commit();
    const MappedFile file(folder / name);
    const std::vector<float> wanted(4, 40.0f);
    const auto bytes = std::as_bytes(std::span(wanted));
    return std::search(file.bytes().begin(), file.bytes().end(), bytes.begin(), bytes.end()) != file.bytes().end();
  };
  EXPECT_TRUE(holds_it("before"));
  heads.renew_cells();
  EXPECT_FALSE(holds_it("after"));
  EXPECT_GT(found(heads, rows, 4), 0.9);
}

TEST(HeadTable, AMovedHeadIsFoundAtItsNewPlace) {
  const std::vector<float> rows = clumps(1000);
  Ledger ledger;
  HeadTable heads(ledger, kDimension);
  heads.add(rows);
  const std::vector<float> far(kDimension, 50);
  heads.set_row(123, far);
  std::vector<HeadHit> hits;
  heads.search(far, 1, hits);
  EXPECT_EQ(hits[0].node, 123u);
  EXPECT_EQ(hits[0].distance, 0);
}

class SavedTable : public testing::Test {
 protected:
  SavedTable() : heads_(ledger_, kDimension) {
    rows_ = clumps(900);
    heads_.add(rows_);
    for (uint32_t node = 5; node < 900; node += 9) heads_.remove(node);
    IndexFileWriter out(folder_ / "table", {IndexFileKind::kSpann, Metric::kL2, kDimension});
    heads_.write(out);
    out.commit();
    const MappedFile file(folder_ / "table");
    const auto payload = parse_index_file(file.bytes(), IndexFileKind::kSpann, "table").payload;
    bytes_.assign(payload.begin(), payload.end());
  }
  std::unique_ptr<HeadTable> read() {
    ByteReader reader(bytes_, "table");
    return HeadTable::read(ledger_, reader);
  }
  TestFolder folder_;
  Ledger ledger_;
  HeadTable heads_;
  std::vector<float> rows_;
  std::vector<std::byte> bytes_;
};

TEST_F(SavedTable, ComesBackAsItWas) {
  const auto back = read();
  EXPECT_EQ(back->size(), heads_.size());
  EXPECT_EQ(back->n_removed(), heads_.n_removed());
  std::vector<HeadHit> a, b;
  for (size_t at = 0; at < rows_.size(); at += kDimension) {
    const auto query = std::span(rows_).subspan(at, kDimension);
    EXPECT_EQ(heads_.search(query, 5, a), back->search(query, 5, b));
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i].node, b[i].node);
  }
}

TEST_F(SavedTable, DamageIsRefused) {
  const std::vector<std::byte> sound = bytes_;
  const auto refused = [&](size_t at, uint32_t value) {
    bytes_ = sound;
    std::memcpy(bytes_.data() + at, &value, sizeof value);
    EXPECT_THROW(read(), Error) << at;
  };
  refused(0, 0x7FFFFFFF);  // heads
  refused(8, 0);           // dimension
  refused(12, 901);        // cells
  refused(16, 0x7C007C00);  // an infinite row
  refused(16 + 900 * kDimension * 2, 900);  // a cell that is not there
  const uint32_t nan = 0x7FC00000;
  refused(bytes_.size() - 4, nan);  // a centre
  for (size_t n : {size_t{0}, size_t{15}, size_t{2000}, sound.size() - 1}) {
    bytes_.assign(sound.begin(), sound.begin() + static_cast<ptrdiff_t>(n));
    EXPECT_THROW(read(), Error) << n;
  }
}

}  // namespace
}  // namespace mneme::ann
