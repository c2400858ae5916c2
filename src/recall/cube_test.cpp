#include "recall/cube.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <fstream>

#include "base/atomic_file.h"
#include "base/philox.h"
#include "base/test_error.h"
#include "recall/cube_file.h"
#include "recall/erase.h"
#include "recall/history.h"
#include "recall/search/search.h"
#include "recall/sql/sqlite_database.h"
#include "recall/test_stores.h"

namespace mneme::recall {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class CubeTest : public OnEachDatabase {};
MNEME_ON_EACH_DATABASE(CubeTest);

std::vector<std::string> texts(const SearchResult& result) {
  std::vector<std::string> all;
  for (const Hit& hit : result.hits) all.push_back(hit.record.text);
  return all;
}

TEST_P(CubeTest, MovesAMemoryToAnotherUserAndBack) {
  const auto store = open();
  std::ofstream(folder_.file("adapter.bin"), std::ios::binary) << std::string(5'000'000, 'w');
  Record adapter = note("ann", "");
  adapter.kind = Kind::kAdapter;
  adapter.pointer = Pointer{folder_.file("adapter.bin"), "model-x", 5'000'000};
  Record first = note("ann", "Mia was born in Lyon");
  first.id = new_record_id();
  Record second = note("ann", "Mia moved to Paris");
  second.links = {{"after", first.id}};
  store->add(std::vector{second, first, adapter}, std::vector<std::vector<float>>{{1, 0}, {0, 1}, {1, 1}});
  store->update(user("ann"), first.id, [](Record& r) { r.text = "Mia was born in Nice"; });
  const std::string cube = folder_.file("ann.cube");
  const CubeManifest manifest = export_cube(*store, user("ann"), cube);
  EXPECT_EQ(manifest.records, 3u);
  EXPECT_EQ(manifest.events, 4u);
  EXPECT_EQ(manifest.payloads, 1u);
  EXPECT_EQ(verify_cube(cube).checksum, manifest.checksum);

  const CubeMerge merge = import_cube(*store, user("bo"), cube, folder_.file("payloads"));
  EXPECT_EQ(merge.added, 3u);
  EXPECT_EQ(merge.payloads, 1u);
  EXPECT_EQ(import_cube(*store, user("bo"), cube, folder_.file("payloads")).unchanged, 3u);
  EXPECT_EQ(texts(search(*store, {.text = "born", .scope = user("bo")})),
            texts(search(*store, {.text = "born", .scope = user("ann")})));
  EXPECT_EQ(history(*store, user("bo"), first.id).size(), 2u);
  for (const auto& entry : std::filesystem::directory_iterator(folder_.file("payloads"))) {
    EXPECT_EQ(read_text_file(entry.path().string()), std::string(5'000'000, 'w'));
  }
  const std::string again = folder_.file("bo.cube");
  export_cube(*store, user("bo"), again);
  const CubeDiff diff = diff_cubes(cube, again);
  EXPECT_THAT(diff.only_first, IsEmpty());
  EXPECT_THAT(diff.only_second, IsEmpty());
  EXPECT_THAT(diff.changed, IsEmpty());
  store->check();
}

TEST_P(CubeTest, MergesWhatPartedAndLosesNothing) {
  const auto store = open();
  const std::string a = store->add(note("bo", "first")).id, b = store->add(note("bo", "second")).id,
                    c = store->add(note("bo", "third")).id;
  const std::string old_cube = folder_.file("old.cube"), new_cube = folder_.file("new.cube");
  export_cube(*store, user("bo"), old_cube);
  import_cube(*store, user("ann"), old_cube);
  store->update(user("bo"), a, [](Record& r) { r.text = "first, changed by bo"; });
  store->update(user("bo"), b, [](Record& r) { r.text = "second, changed by bo"; });
  erase(*store, user("ann"), std::vector{c});
  export_cube(*store, user("bo"), new_cube);
  store->update(user("ann"), b, [](Record& r) { r.text = "second, changed by ann, later"; });
  EXPECT_THAT(diff_cubes(old_cube, new_cube).changed.size(), 2u);
  EXPECT_EQ(import_cube(*store, user("ann"), old_cube).unchanged, 2u);

  const CubeMerge merge = import_cube(*store, user("ann"), new_cube);
  EXPECT_EQ(merge.updated, 1u);
  EXPECT_EQ(merge.conflicts, 1u);
  EXPECT_EQ(merge.refused, 1u);
  EXPECT_EQ(store->get(user("ann"), a).text, "first, changed by bo");
  EXPECT_EQ(store->get(user("ann"), b).text, "second, changed by ann, later");
  std::vector<std::string> versions;
  for (const Event& event : history(*store, user("ann"), b)) versions.push_back(event.after->text);
  EXPECT_THAT(versions, testing::Contains("second, changed by bo"));
  EXPECT_EQ(import_cube(*store, user("ann"), new_cube).unchanged, 2u) << "done again, nothing changes";
  store->check();

  const std::string merged = folder_.file("merged.cube");
  EXPECT_EQ(merge_cubes(std::vector{old_cube, new_cube}, merged, "both").records, 3u);
  EXPECT_THAT(diff_cubes(new_cube, merged).changed, IsEmpty());
}

TEST(Cube, DamageIsFoundAndNamed) {
  TestFolder folder;
  const auto store = Store::open(folder.file("memory.db"));
  std::vector<Record> records;
  for (int i = 0; i < 200; ++i)
    records.push_back(note("bo", fmt::format("a fact with number {} and some more words", i)));
  store->add(records);
  const std::string cube = folder.file("bo.cube");
  export_cube(*store, user("bo"), cube);
  const std::string sound = read_text_file(cube);
  PhiloxStream random(4);
  int refused = 0, same = 0;
  for (int i = 0; i < 60; ++i) {
    std::string damaged = sound;
    if (i % 3 == 0) {
      damaged.resize(random.next_below(damaged.size()));
    } else {
      damaged[random.next_below(damaged.size())] ^= static_cast<char>(1 + random.next_below(255));
    }
    const std::string path = folder.file("damaged.cube");
    std::ofstream(path, std::ios::binary) << damaged;
    const std::string error = error_of([&] { verify_cube(path); });
    if (error == "no error") {
      // A byte of a free page or of SQLite's counters: nothing that is said.
      ++same;
      EXPECT_THAT(diff_cubes(cube, path).changed, IsEmpty());
    } else {
      ++refused;
      EXPECT_THAT(error, HasSubstr("damaged.cube"));
    }
    EXPECT_EQ(error.find('\n'), error.npos);
  }
  EXPECT_GT(refused, 40) << same;
  {
    SqliteOptions options;
    options.single_file = true;
    open_sqlite(cube, options)->script("PRAGMA user_version = 9");
  }
  EXPECT_THAT(error_of([&] { verify_cube(cube); }), HasSubstr("expected version 1 to 1, found 9"));
  EXPECT_THAT(error_of([&] { verify_cube(folder.file("memory.db")); }), HasSubstr("another kind"));
  EXPECT_THAT(error_of([&] { verify_cube(folder.file("none.cube")); }), HasSubstr("no such file"));
  std::ofstream(folder.file("text.cube")) << "this is no database, and long enough to be looked at";
  EXPECT_THAT(error_of([&] { verify_cube(folder.file("text.cube")); }), HasSubstr("sound SQLite file"));
}

}  // namespace
}  // namespace mneme::recall
