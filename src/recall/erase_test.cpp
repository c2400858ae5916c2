#include "recall/erase.h"

#include <gmock/gmock.h>

#include <fstream>

#include "base/atomic_file.h"
#include "base/philox.h"
#include "base/test_error.h"
#include "recall/byte_scan.h"
#include "recall/cube.h"
#include "recall/search/search.h"
#include "recall/test_stores.h"

namespace mneme::recall {
namespace {

/// Text of random words, that no other text shares.
std::string unique_text(PhiloxStream& random, size_t bytes) {
  std::string text;
  while (text.size() < bytes) {
    for (uint64_t n = 3 + random.next_below(6); n > 0; --n) text += static_cast<char>('a' + random.next_below(26));
    text += random.next_below(12) == 0 ? "\"\n" : " ";
  }
  text.resize(bytes, 'z');
  return text;
}

/// Runs of `length` bytes of `text`, looked for in all files of a folder in the plainest way.
std::string found_in_folder(const std::filesystem::path& folder, const std::string& text, size_t length) {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    const std::string bytes = read_text_file(entry.path().string());
    for (size_t at = 0; at + length <= text.size(); at += 24) {
      if (bytes.find(text.substr(at, length)) != bytes.npos)
        return entry.path().string() + ": " + text.substr(at, length);
    }
  }
  return "";
}

TEST(Erase, NoBytesRemainInAnyFile) {
  PhiloxStream random(77);
  TestFolder folder;
  const auto store = Store::open(folder.file("memory.db"));
  std::vector<std::string> ids, texts, kept;
  for (int round = 0; round < 6; ++round) {
    std::vector<Record> records;
    std::vector<std::vector<float>> vectors;
    for (int i = 0; i < 40; ++i) {
      // Among them such as need many pages of the database each.
      records.push_back(note(i % 2 == 0 ? "bo" : "ann", unique_text(random, i % 13 == 0 ? 20'000 : 40 + 10 * i)));
      std::vector<float> v;
      for (int k = 0; k < 64; ++k) v.push_back(random.next_normal());
      vectors.push_back(v);
    }
    const std::vector<Added> added = store->add(records, vectors);
    for (size_t i = 0; i < records.size(); ++i) {
      (i % 4 == 0 ? texts : kept).push_back(records[i].text);
      if (i % 4 == 0) ids.push_back(added[i].id);
    }
  }
  for (size_t i = 0; i < ids.size(); i += 2) {
    const std::string text = unique_text(random, 100 + i);
    store->update(user("bo"), ids[i], [&](Record& r) {
      r.text = text;
      r.metadata = {{"secret", "metadata " + text}};
    });
    texts.push_back(text);
  }
  const std::string cube = folder.file("bo.cube");
  export_cube(*store, user("bo"), cube);
  ASSERT_NE(found_in_folder(folder.path(), texts[0], 16), "");
  const Erasure erasure = erase(*store, user("bo"), ids, {.verify = true});
  EXPECT_EQ(erasure.ids.size(), ids.size());
  EXPECT_THAT(erasure.cubes, testing::ElementsAre(cube));
  EXPECT_GE(erasure.n_texts, texts.size());
  for (const std::string& text : texts) {
    ASSERT_EQ(found_in_folder(folder.path(), text.substr(0, 200), 16), "");
  }
  store->check();
  EXPECT_EQ(verify_cube(cube).records, kept.size() / 3);
  for (size_t i = 0; i < kept.size(); i += 50) {
    EXPECT_NE(found_in_folder(folder.path(), Json(kept[i]).dump().substr(1, 16), 16), "");
  }
}

TEST(Erase, WaitsForNobodyToReadThePast) {
  TestFolder folder;
  StoreOptions options;
  const auto store = Store::open(folder.file("memory.db"), options);
  const std::string id = store->add(note("bo", "a secret that somebody still reads")).id;
  EXPECT_TRUE(erase(*store, user("bo"), std::vector{id}, {.verify = true}).missing_cubes.empty());
  EXPECT_EQ(found_in_folder(folder.path(), "a secret that somebody still reads", 12), "");
}

TEST(ByteScan, FindsPartsWhereverTheyLie) {
  TestFolder folder;
  PhiloxStream random(3);
  const std::string text = unique_text(random, 5000);
  ByteScan scan;
  EXPECT_FALSE(scan.add("four5"));
  EXPECT_TRUE(scan.add("short text"));
  EXPECT_TRUE(scan.add(text));
  for (const size_t at : {size_t{0}, (size_t{1} << 20) - 20, (size_t{1} << 20) - 5, (size_t{2} << 20) - 31}) {
    for (const std::string& part : {text.substr(777, 31), text.substr(4969, 31), std::string("short text")}) {
      std::string bytes((size_t{2} << 20) + 100, '\0');
      bytes.replace(at, part.size(), part);
      std::ofstream(folder.file("f"), std::ios::binary) << bytes;
      const auto found = scan.scan(folder.file("f"));
      ASSERT_EQ(found.size(), 1u) << at;
      EXPECT_NEAR(static_cast<double>(found[0].offset), static_cast<double>(at), 16);
    }
  }
  std::ofstream(folder.file("f"), std::ios::binary) << std::string(100'000, 'x') << text.substr(100, 15);
  EXPECT_TRUE(scan.scan(folder.file("f")).empty());
}

}  // namespace
}  // namespace mneme::recall
