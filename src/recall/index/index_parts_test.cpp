#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "base/atomic_file.h"
#include "base/philox.h"
#include "base/test_error.h"
#include "recall/index/id_map.h"
#include "recall/index/posting_file.h"
#include "recall/index/test_index.h"
#include "recall/index/update_log.h"
#include "recall/index/vector_codec.h"

namespace mneme::ann {
namespace {

TEST(VectorCodec, DistancesAreToWhatWasStored) {
  for (VectorType type : {VectorType::kF32, VectorType::kF16, VectorType::kI8}) {
    for (size_t d : {1u, 7u, 33u, 128u}) {
      const VectorCodec codec(type, d);
      const std::vector<float> rows = mixture_rows(2, d);
      std::vector<std::byte> element(codec.bytes()), again(codec.bytes());
      std::vector<float> back(d);
      codec.encode(std::span(rows).first(d), element.data());
      codec.decode(element.data(), back);
      codec.encode(back, again.data());
      EXPECT_EQ(element, again);
      double sum = 0, most = 0;
      for (size_t i = 0; i < d; ++i) {
        const double gap = static_cast<double>(rows[d + i]) - back[i];
        sum += gap * gap;
        most = std::max(most, std::abs(static_cast<double>(rows[i])));
      }
      EXPECT_NEAR(codec.distance(rows.data() + d, element.data()), sum, 1e-5 * (sum + most * most));
      const double step = type == VectorType::kI8    ? most / 127 / 2 * 1.001
                          : type == VectorType::kF16 ? most * 0x1p-11
                                                     : 0;
      for (size_t i = 0; i < d; ++i) EXPECT_NEAR(back[i], rows[i], step);
    }
  }
  const std::vector<float> zeros(5, 0.0f);
  const VectorCodec codec(VectorType::kI8, 5);
  std::vector<std::byte> element(codec.bytes());
  codec.encode(zeros, element.data());
  EXPECT_EQ(codec.distance(zeros.data(), element.data()), 0.0f);
}

TEST(IdMap, IsAMap) {
  Ledger ledger;
  GrowingArray<uint64_t> ids(ledger, Tag::kIndex, "ids");
  IdMap map(ledger, ids);
  std::map<uint64_t, uint32_t> expected;
  PhiloxStream random(1);
  for (int step = 0; step < 20000; ++step) {
    const uint64_t id = random.next_below(3000) << 40;
    const auto found = expected.find(id);
    ASSERT_EQ(map.find(id).has_value(), found != expected.end());
    if (found == expected.end()) {
      ids.push_back(id);
      const auto slot = static_cast<uint32_t>(ids.size() - 1);
      map.insert(slot);
      expected[id] = slot;
    } else {
      ASSERT_EQ(*map.find(id), found->second);
      map.erase(found->second);
      expected.erase(found);
    }
    ASSERT_EQ(map.size(), expected.size());
  }
}

TEST(PostingFile, PagesAreUsedAgainOnlyAfterACheckpoint) {
  TestFolder folder;
  Ledger ledger;
  constexpr size_t kElement = 100;
  PostingFile file(ledger, std::make_unique<DurableFile>(folder / "postings"), kElement);
  Posting list;
  std::vector<std::byte> element(kElement, std::byte{7});
  for (uint32_t i = 0; i < 100; ++i) list.add(i, element.data(), kElement);
  const ListEntry first = file.write(1, list.view()), second = file.write(2, list.view());
  EXPECT_EQ(first.pages, 3u);
  EXPECT_EQ(file.read(second).slots, list.slots);
  EXPECT_EQ(file.read(second).elements, list.elements);
  file.drop(first);
  EXPECT_EQ(file.write(3, list.view()).page, 6u);
  file.release_dropped();
  EXPECT_EQ(file.write(4, list.view()).page, 0u);
  EXPECT_EQ(file.n_free_pages(), 0u);
  const ListEntry forged = {second.page, second.pages, second.count, 9};
  EXPECT_NE(error_of([&] { (void)file.read(forged); }).find("of list 9, found 100 of 100 of list 2"),
            std::string::npos);
  const ListEntry overlapping[] = {second, {second.page + 1, 1, 1, 0}};
  EXPECT_NE(error_of([&] { file.adopt(overlapping); }).find("apart from each other"), std::string::npos);
}

TEST(PostingFile, FreePagesAddUpWhateverTheOrder) {
  TestFolder folder;
  Ledger ledger;
  constexpr size_t kElement = 4000;  // about a page each
  PostingFile file(ledger, std::make_unique<DurableFile>(folder / "postings"), kElement);
  PhiloxStream random(2);
  std::vector<ListEntry> held;
  const std::vector<std::byte> elements(20 * kElement, std::byte{1});
  const std::vector<uint32_t> slots(20, 5);
  for (int step = 0; step < 300; ++step) {
    if (held.size() > 20 || (!held.empty() && random.next_below(3) == 0)) {
      const size_t i = random.next_below(held.size());
      file.drop(held[i]);
      held.erase(held.begin() + static_cast<ptrdiff_t>(i));
      if (random.next_below(4) == 0) file.release_dropped();
    } else {
      const size_t n = 1 + random.next_below(20);
      held.push_back(file.write(7, {std::span(slots).first(n), std::span(elements).first(n * kElement)}));
    }
    uint64_t pages = 0;
    for (const ListEntry& entry : held) pages += entry.pages;
    ASSERT_EQ(pages + file.n_free_pages(), file.n_pages());
  }
  for (const ListEntry& entry : held) EXPECT_EQ(file.read(entry).size(), entry.count);
  file.adopt(held);  // finds the same free pages
  uint64_t pages = 0;
  for (const ListEntry& entry : held) pages += entry.pages;
  EXPECT_EQ(pages + file.n_free_pages(), file.n_pages());
}

TEST(UpdateLog, KeepsWhatIsWholeAndDropsATornEnd) {
  TestFolder folder;
  const std::string path = folder / "log";
  const std::vector<uint64_t> ids = {4, 5};
  const std::vector<float> rows = {1, 2, 3, 4};
  {
    UpdateLog log(std::make_unique<DurableFile>(path), 9, 2);
    log.append(true, ids, rows);
    log.append(false, std::span(ids).first(1), {});
  }
  const std::string bytes = read_text_file(path);
  const auto parse = [](std::string_view text) {
    return parse_update_log(std::as_bytes(std::span(text.data(), text.size())), 2, "log");
  };
  const LogContents all = parse(bytes);
  ASSERT_EQ(all.records.size(), 2u);
  EXPECT_EQ(all.generation, 9u);
  EXPECT_EQ(all.records[0].ids, ids);
  EXPECT_EQ(all.records[0].rows, rows);
  EXPECT_FALSE(all.records[1].is_add);
  for (size_t cut = 32; cut < bytes.size(); ++cut)
    EXPECT_LE(parse(std::string_view(bytes).substr(0, cut)).records.size(), 1u);
  for (size_t at = 32; at < bytes.size(); ++at) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 4);
    EXPECT_LE(parse(damaged).records.size(), 1u) << at;
  }
  {
    UpdateLog log(std::make_unique<DurableFile>(path), parse(std::string_view(bytes).substr(0, bytes.size() - 1)));
    log.append(true, ids, rows);
  }
  EXPECT_EQ(parse(read_text_file(path)).records.size(), 2u);
  EXPECT_NE(
      error_of([&] { (void)parse_update_log(std::as_bytes(std::span(bytes)), 3, "log"); }).find("dimension 3, found 2"),
      std::string::npos);
}

}  // namespace
}  // namespace mneme::ann
