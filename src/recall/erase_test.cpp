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

/// A file in a folder that is made when it is missing.
std::string written(const std::filesystem::path& path) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path) << "keys and values";
  return path.string();
}

Record pointing(Kind kind, const std::string& file, const std::vector<std::string>& parents) {
  Record record = note("bo", "");
  record.kind = kind;
  record.pointer = Pointer{file, "model", 15};
  record.source.parents = parents;
  return record;
}

TEST(Erase, ReachesSegmentsAndAdaptersMadeFromIt) {
  TestFolder folder;
  const char* before = std::getenv("XDG_DATA_HOME");
  const std::string saved = before != nullptr ? before : "";
  ::setenv("XDG_DATA_HOME", (folder.path() / "data").c_str(), 1);
  const auto store = Store::open(folder.file("memory.db"));
  const auto exists = [](const std::string& file) { return std::filesystem::exists(file); };
  const std::string secret = store->add(note("bo", "the secret of bo")).id;
  const std::string summary = [&] {
    Record record = note("bo", "a summary");
    record.source.parents = {secret};
    return store->add(record).id;
  }();
  const std::string ours = written(folder.path() / "data/mneme/segments/a.kv");
  const std::string payload = written(folder.path() / "payloads/b.adapter");
  const std::string foreign = written(folder.path() / "elsewhere/c.kv");
  const std::string of_summary = written(folder.path() / "data/mneme/segments/d.kv");
  const std::string shared = written(folder.path() / "data/mneme/segments/e.kv");
  const std::string store_file = written(folder.path() / "data/mneme/recall/other.db");
  const std::string link = (folder.path() / "data/mneme/segments/link.kv").string();
  std::filesystem::create_symlink(foreign, link);
  const std::string segment = store->add(pointing(Kind::kKvSegment, ours, {secret})).id;
  store->add(pointing(Kind::kAdapter, payload, {segment}));  // made from what was made from it
  store->add(pointing(Kind::kKvSegment, foreign, {secret}));
  store->add(pointing(Kind::kKvSegment, link, {secret}));
  store->add(pointing(Kind::kKvSegment, of_summary, {summary}));
  store->add(pointing(Kind::kKvSegment, shared, {secret}));
  store->add(pointing(Kind::kKvSegment, store_file, {secret}));
  Record eves = pointing(Kind::kKvSegment, shared, {});
  eves.scope.user = "eve";
  store->add(eves);
  const std::string plain = store->add(pointing(Kind::kAdapter, written(folder.path() / "payloads/f.adapter"), {})).id;

  const Erasure dry = erase(*store, user("bo"), std::vector{secret}, {.dry_run = true});
  EXPECT_EQ(dry.files.size(), 2u);
  EXPECT_TRUE(exists(ours) && exists(payload));
  const Erasure erasure = erase(*store, user("bo"), std::vector{secret}, {.verify = true});
  EXPECT_THAT(erasure.files, testing::UnorderedElementsAre(ours, payload));
  EXPECT_THAT(erasure.files_left, testing::UnorderedElementsAre(foreign, link, shared, store_file));
  EXPECT_FALSE(exists(ours) || exists(payload));
  EXPECT_TRUE(exists(foreign) && exists(shared) && exists(store_file));
  // A text made from it stays without --derived, and with it what was made from that text alone.
  EXPECT_THAT(erasure.derived, testing::Contains(summary));
  EXPECT_EQ(erasure.ids.size(), 7u);
  EXPECT_TRUE(exists(of_summary));
  store->check();
  erase(*store, user("bo"), std::vector{summary});
  EXPECT_FALSE(exists(of_summary));
  // An adapter that was made from no memory is not deleted with what points to it.
  EXPECT_THAT(erase(*store, user("bo"), std::vector{plain}).files_left, testing::SizeIs(1));
  EXPECT_TRUE(exists((folder.path() / "payloads/f.adapter").string()));
  if (before != nullptr) {
    ::setenv("XDG_DATA_HOME", saved.c_str(), 1);
  } else {
    ::unsetenv("XDG_DATA_HOME");
  }
}

TEST(Erase, VectorsThatOthersHaveTooStay) {
  TestFolder folder;
  const auto store = Store::open(folder.file("memory.db"));
  std::vector<float> vector;
  for (int i = 0; i < 64; ++i) vector.push_back(static_cast<float>(i % 7) + 0.5f);
  const std::vector<std::vector<float>> vectors = {vector};
  const std::vector<Record> bos = {note("bo", "both say this")}, eves = {note("eve", "both say this")};
  const std::string id = store->add(bos, vectors).front().id;
  store->add(eves, vectors);
  const Erasure erasure = erase(*store, user("bo"), std::vector{id}, {.verify = true});
  EXPECT_GT(erasure.n_shared, 0u);
  EXPECT_FALSE(erasure.rewritten);
  EXPECT_EQ(store->stats("default").vectors, 1u);
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
