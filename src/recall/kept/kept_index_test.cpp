// Vector indexes kept beside a store: they find what a scan finds, follow every change, forget what was erased, and may
// be damaged, lost, shared and killed.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>

#include "base/atomic_file.h"
#include "base/philox.h"
#include "base/test_error.h"
#include "recall/erase.h"
#include "recall/index/unit_length.h"
#include "recall/index/vector_codec.h"
#include "recall/index/vector_mixture.h"
#include "recall/kept/vector_search.h"
#include "recall/search/vectors.h"
#include "recall/test_stores.h"

extern char** environ;

namespace mneme::recall {
namespace {

constexpr size_t kDimension = 24;

std::vector<float> row(uint64_t number) {
  static const ann::VectorMixture mixture([] {
    ann::MixtureOptions options;
    options.dimension = kDimension;
    options.modes = 40;
    return options;
  }());
  std::vector<float> row(kDimension);
  mixture.rows(number, row);
  return row;
}

StoreOptions options_for(const std::string& kind) {
  StoreOptions options;
  options.index_from = 100;
  options.index_kind = kind;
  return options;
}

/// Adds rows [first, first + n) of a user; every tenth has the tag "rare".
std::vector<std::string> add_rows(Store& store, const std::string& name, uint64_t first, size_t n) {
  std::vector<Record> records;
  std::vector<std::vector<float>> vectors;
  for (uint64_t i = first; i < first + n; ++i) {
    records.push_back(note(name, fmt::format("vector number {}", i)));
    if (i % 10 == 0) records.back().tags = {"rare"};
    if (i % 3 == 0) records.back().tags.push_back("third");
    vectors.push_back(row(i));
  }
  std::vector<std::string> ids;
  for (const Added& added : store.add(records, vectors)) ids.push_back(added.id);
  return ids;
}

struct Found {
  std::vector<VectorMatch> matches;
  VectorSearchCost cost;
};

/// With the index, or by a scan.
Found find(Store& store, const std::string& name, std::span<const float> query, size_t k, const Filter& filter = {},
           bool scan = false) {
  std::vector<float> unit(query.size());
  ann::to_unit_length(query, unit);
  Found found;
  store.read(user(name), [&] {
    const int64_t scope = store.scope_number(user(name));
    const SqlCondition condition = sql_condition(filter, store.clock());
    if (scan) {
      uint64_t n = 0;
      found.matches = match_vectors(store.database(), scope, unit, condition.where, condition.parameters, k, n);
    } else {
      found.matches = store.vectors().match(scope, unit, condition, k, found.cost);
    }
  });
  return found;
}

/// Mean part of what a scan finds that the index finds too; every cosine must be the same.
double recall_of(Store& store, const std::string& name, size_t n_queries, size_t k, const Filter& filter = {},
                 VectorSearchCost* cost = nullptr) {
  size_t n = 0, wanted = 0;
  for (size_t q = 0; q < n_queries; ++q) {
    const std::vector<float> query = row(1'000'000 + q);
    const Found right = find(store, name, query, k, filter, true), got = find(store, name, query, k, filter);
    if (cost != nullptr) *cost = got.cost;
    wanted += right.matches.size();
    EXPECT_EQ(got.matches.size(), right.matches.size());
    for (const VectorMatch& match : right.matches) {
      for (const VectorMatch& other : got.matches) {
        if (other.record != match.record) continue;
        EXPECT_EQ(other.cosine, match.cosine);
        ++n;
      }
    }
  }
  return wanted == 0 ? 1 : static_cast<double>(n) / static_cast<double>(wanted);
}

/// Whether any file of a folder holds 16 bytes of any form of a vector: f32 at length 1, f16 and i8.
std::string traces_of(const std::filesystem::path& folder, std::span<const float> vector) {
  std::vector<float> unit(vector.size()), stored(vector.size());
  ann::to_unit_length(vector, stored);
  ann::to_unit_length(stored, unit);
  std::vector<std::string> forms(4, std::string(vector.size() * 4, '\0'));
  std::memcpy(forms[0].data(), stored.data(), forms[0].size());
  std::memcpy(forms[1].data(), unit.data(), forms[1].size());
  ann::VectorCodec(ann::VectorType::kF16, unit.size()).encode(unit, reinterpret_cast<std::byte*>(forms[2].data()));
  ann::VectorCodec(ann::VectorType::kI8, unit.size()).encode(unit, reinterpret_cast<std::byte*>(forms[3].data()));
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    const std::string bytes = read_text_file(entry.path().string());
    for (const std::string& form : forms) {
      if (bytes.find(form.substr(0, 16)) != bytes.npos) return entry.path().string();
    }
  }
  return "";
}

class KeptIndex : public testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<Store> open() { return Store::open(folder_.file("memory.db"), options_for(GetParam())); }
  std::filesystem::path index_folder() const { return folder_.path() / "memory.db.index"; }
  TestFolder folder_;
};
INSTANTIATE_TEST_SUITE_P(Kinds, KeptIndex, testing::Values("exact", "hnsw", "spann"),
                         [](const auto& each) { return std::string(each.param); });

TEST_P(KeptIndex, FindsWhatAScanFinds) {
  const auto store = open();
  add_rows(*store, "bo", 0, 2500);
  add_rows(*store, "ann", 50'000, 30);
  VectorSearchCost cost;
  const double recall = recall_of(*store, "bo", 40, 10, {}, &cost);
  EXPECT_EQ(cost.way, GetParam()) << cost.why_scan;
  EXPECT_EQ(cost.vectors, 2500u);
  EXPECT_GE(recall, std::string(GetParam()) == "exact" ? 1.0 : 0.97);
  EXPECT_LT(cost.read, 100u);  // of the database
  EXPECT_GT(store->vectors().files().size(), 1u);
  // Few vectors: no index.
  EXPECT_EQ(find(*store, "ann", row(50'001), 3).cost.why_scan, "few vectors");
  EXPECT_EQ(recall_of(*store, "ann", 3, 3), 1);
  store->check();
}

/// What an index found is looked up one by one, however many other vectors the user has.
TEST(KeptIndexLookUp, ReadsOnlyTheRecordsFound) {
  TestFolder folder;
  const auto store = Store::open(folder.file("memory.db"));
  add_rows(*store, "ann", 0, 10);
  std::string plan;
  store->database().query("EXPLAIN QUERY PLAN " + vectors_of_records_sql(4, "r.state = 0"), {1, 1, 2, 3, 4},
                          [&](const SqlRow& row) { plan += std::string(row.text(3)) + "\n"; });
  EXPECT_THAT(plan, testing::HasSubstr("(record=?)"));
  EXPECT_THAT(plan, testing::Not(testing::HasSubstr("vector_of_scope"))) << plan;
}

TEST_P(KeptIndex, FiltersAreKeptTo) {
  const auto store = open();
  add_rows(*store, "bo", 0, 2500);
  Filter third;
  third.tags = {"third"};
  VectorSearchCost cost;
  EXPECT_GE(recall_of(*store, "bo", 15, 10, third, &cost), 0.97);
  EXPECT_EQ(cost.way, GetParam());
  // So narrow that the tables are faster, and always right.
  Filter narrow;
  narrow.tags = {"rare", "third"};
  EXPECT_EQ(recall_of(*store, "bo", 15, 40, narrow, &cost), 1);
  EXPECT_EQ(cost.way, "scan");
  EXPECT_EQ(cost.why_scan, "narrow filter");
  Filter none;
  none.tags = {"nobody has it"};
  EXPECT_TRUE(find(*store, "bo", row(3), 10, none).matches.empty());
}

TEST_P(KeptIndex, FollowsEveryChangeInEveryProcess) {
  const auto first = open(), second = open();
  const std::vector<std::string> ids = add_rows(*first, "bo", 0, 600);
  EXPECT_TRUE(find(*first, "bo", row(3), 5).cost.built);
  EXPECT_EQ(find(*first, "bo", row(3), 5).cost.caught_up, 0u);
  add_rows(*second, "bo", 600, 150);
  EXPECT_EQ(find(*first, "bo", row(700), 5).cost.caught_up, 150u);
  EXPECT_GE(recall_of(*first, "bo", 15, 10), 0.97);
  // A new text without a new vector takes the vector away; a new state leaves it.
  second->update(user("bo"), ids[5], [](Record& r) { r.text = "another text"; });
  second->set_state(user("bo"), ids[6], State::kArchived);
  erase(*second, user("bo"), std::vector{ids[7]});
  const auto has = [](const Found& found, Store& store, const std::string& id) {
    const int64_t number = store.database().integer("SELECT num FROM record WHERE id = ?", {id});
    return std::any_of(found.matches.begin(), found.matches.end(),
                       [&](const VectorMatch& match) { return match.record == number; });
  };
  EXPECT_FALSE(has(find(*first, "bo", row(5), 5), *first, ids[5]));
  EXPECT_FALSE(has(find(*first, "bo", row(6), 5), *first, ids[6]));
  Filter archived;
  archived.states = {State::kArchived};
  EXPECT_TRUE(has(find(*first, "bo", row(6), 5, archived), *first, ids[6]));
  EXPECT_FALSE(has(find(*first, "bo", row(7), 5), *first, ids[7]));
  EXPECT_TRUE(has(find(*first, "bo", row(8), 5), *first, ids[8]));
  // Both give right answers at once; a SPANN index has one process.
  VectorSearchCost cost;
  EXPECT_GE(recall_of(*second, "bo", 5, 10, {}, &cost), 0.97);
  if (std::string(GetParam()) == "spann") {
    EXPECT_EQ(cost.why_scan, "another process has the index");
  }
  first->check();
}

TEST_P(KeptIndex, ErasedVectorsLeaveAllFiles) {
  const auto store = open(), other = open();
  const std::vector<std::string> ids = add_rows(*store, "bo", 0, 800);
  find(*store, "bo", row(3), 5);
  find(*other, "bo", row(3), 5);
  ASSERT_NE(traces_of(index_folder(), row(17)), "");
  std::vector<std::string> gone;
  for (size_t i = 0; i < ids.size(); i += 17) gone.push_back(ids[i]);
  const Erasure erasure = erase(*store, user("bo"), gone, {.verify = true});
  EXPECT_FALSE(erasure.rewritten);
  for (size_t i = 0; i < ids.size(); i += 17) EXPECT_EQ(traces_of(folder_.path(), row(i)), "") << i;
  EXPECT_NE(traces_of(index_folder(), row(18)), "");  // others are still there
  // Who had the index in memory from before does not bring it back.
  add_rows(*other, "bo", 800, 100);
  EXPECT_GE(recall_of(*other, "bo", 5, 10), 0.97);
  for (size_t i = 0; i < ids.size(); i += 17) EXPECT_EQ(traces_of(folder_.path(), row(i)), "") << i;
  store->check();
  other->check();
  EXPECT_GE(recall_of(*store, "bo", 15, 10), 0.97);
  // From the process that has not the index.
  erase(*other, user("bo"), std::vector{ids[18]}, {.verify = true});
  EXPECT_EQ(traces_of(folder_.path(), row(18)), "");
  EXPECT_GE(recall_of(*store, "bo", 5, 10), 0.97);
  erase_user(*store, user("bo"), {.verify = true});
  for (size_t i = 0; i < ids.size(); i += 41) EXPECT_EQ(traces_of(folder_.path(), row(i)), "") << i;
}

TEST_P(KeptIndex, DamageAndOldStatesAreNoticed) {
  const std::string path = folder_.file("memory.db");
  {
    const auto store = open();
    add_rows(*store, "bo", 0, 300);
    find(*store, "bo", row(3), 5);
    store->database().scrub(false);
    std::filesystem::copy(path, folder_.file("before.db"));
    add_rows(*store, "bo", 300, 300);
    find(*store, "bo", row(3), 5);
    EXPECT_FALSE(find(*store, "bo", row(3), 5).cost.built);
    store->database().scrub(false);
  }
  EXPECT_FALSE(find(*open(), "bo", row(3), 5).cost.built);  // it is read, not made again
  for (const std::string& file : index_files_in(index_folder().string())) {
    if (file.ends_with(".state") || std::filesystem::file_size(file) < 100) continue;
    std::fstream damaged(file, std::ios::in | std::ios::out | std::ios::binary);
    damaged.seekp(static_cast<std::streamoff>(std::filesystem::file_size(file) / 2));
    damaged << "damage damage";
  }
  if (std::string(GetParam()) != "spann") {  // SPANN reads its lists when they are needed
    EXPECT_NE(error_of([&] { open()->check(); }), "no error");
  }
  const auto store = open();
  EXPECT_TRUE(find(*store, "bo", row(3), 5).cost.built);
  EXPECT_GE(recall_of(*store, "bo", 10, 10), 0.97);
  store->check();
  // The database is put back to an older state and goes on differently.
  std::filesystem::copy(folder_.file("before.db"), path + ".2");
  std::filesystem::copy(index_folder(), path + ".2.index", std::filesystem::copy_options::recursive);
  const auto old = Store::open(path + ".2", options_for(GetParam()));
  add_rows(*old, "bo", 5000, 400);
  EXPECT_TRUE(find(*old, "bo", row(3), 5).cost.built);
  EXPECT_GE(recall_of(*old, "bo", 10, 10), 0.97);
  old->check();
}

/// The process that is killed: adds, searches and erases, and writes a byte after each round.
TEST(KeptIndexChild, DISABLED_Works) {
  const char* path = std::getenv("MNEME_KEPT_STORE");
  if (path == nullptr) GTEST_SKIP() << "only started by KilledAtAnyMomentItStaysRight";
  const auto store = Store::open(path, options_for(std::getenv("MNEME_KEPT_KIND")));
  const int progress = ::open((std::string(path) + ".progress").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  for (uint64_t i = std::strtoull(std::getenv("MNEME_KEPT_FIRST"), nullptr, 10);; i += 60) {
    const std::vector<std::string> ids = add_rows(*store, "bo", i, 60);
    find(*store, "bo", row(i), 5);
    erase(*store, user("bo"), std::span(ids).subspan(0, 20));
    find(*store, "bo", row(i), 5);
    if (::write(progress, ".", 1) != 1) std::abort();
  }
}

/// A new process, not a fork: threads that compare vectors do not live on in one.
TEST_P(KeptIndex, KilledAtAnyMomentItStaysRight) {
  const std::string path = folder_.file("memory.db");
  add_rows(*open(), "bo", 0, 200);
  PhiloxStream random(5);
  const char* runs = std::getenv("MNEME_SOAK_RUNS");
  const auto rounds = [&] {
    std::error_code none;
    const auto size = std::filesystem::file_size(path + ".progress", none);
    return none ? uint64_t{0} : static_cast<uint64_t>(size);
  };
  for (int run = 1; run <= (runs != nullptr ? std::atoi(runs) : 4); ++run) {
    std::string self = "/proc/self/exe", filter = "--gtest_filter=KeptIndexChild.DISABLED_Works",
                all = "--gtest_also_run_disabled_tests", store_is = "MNEME_KEPT_STORE=" + path,
                kind_is = std::string("MNEME_KEPT_KIND=") + GetParam(),
                first_is = fmt::format("MNEME_KEPT_FIRST={}", run * 100'000);
    std::vector<char*> environment = {store_is.data(), kind_is.data(), first_is.data()};
    for (char** v = environ; *v != nullptr; ++v) environment.push_back(*v);
    environment.push_back(nullptr);
    char* arguments[] = {self.data(), filter.data(), all.data(), nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    const uint64_t before = rounds();
    pid_t child = 0;
    ASSERT_EQ(::posix_spawn(&child, self.c_str(), &actions, nullptr, arguments, environment.data()), 0);
    posix_spawn_file_actions_destroy(&actions);
    int status = 0;
    while (rounds() < before + 2 && ::waitpid(child, &status, WNOHANG) == 0) ::usleep(500);
    ::usleep(static_cast<useconds_t>(random.next_below(60'000)));
    ::kill(child, SIGKILL);
    ::waitpid(child, &status, 0);
    ASSERT_GE(rounds(), before + 2) << "the process ended by itself";
    const auto store = open();
    store->check();
    VectorSearchCost cost;
    EXPECT_GE(recall_of(*store, "bo", 5, 10, {}, &cost), 0.95);
    EXPECT_EQ(cost.way, GetParam()) << cost.why_scan;
    store->check();
  }
}

TEST(KeptIndexMemory, IsCountedAndKeptTo) {
  TestFolder folder;
  Ledger ledger(uint64_t{24} << 20);
  StoreOptions options = options_for("");
  options.ledger = &ledger;
  options.cache_bytes = 1 << 20;
  const auto store = Store::open(folder.file("memory.db"), options);
  add_rows(*store, "bo", 0, 500);
  EXPECT_EQ(find(*store, "bo", row(3), 5).cost.way, "exact");
  const uint64_t used = ledger.used(Tier::kRam, Tag::kIndex);
  EXPECT_GE(used, 500 * kDimension * 4);
  EXPECT_EQ(ledger.used(Tier::kRam, Tag::kScratch), 0u);
  // Somebody else takes the rest: the next user's index finds no room, and then takes that of the first.
  add_rows(*store, "ann", 10'000, 500);
  {
    const Reservation rest = ledger.reserve(Tag::kWeights, ledger.available(Tier::kRam), "all there is");
    EXPECT_EQ(recall_of(*store, "ann", 3, 5), 1);
    EXPECT_LE(ledger.used(Tier::kRam), uint64_t{24} << 20);
  }
  options.index_bytes = 1000;
  options.ledger = nullptr;
  const auto small = Store::open(folder.file("memory.db"), options);
  EXPECT_EQ(find(*small, "bo", row(3), 5).cost.why_scan, "no room in memory for an index");
  EXPECT_EQ(recall_of(*small, "bo", 3, 5), 1);
}

TEST(KeptIndexMemory, LargeOnesAreMadeWhenAskedFor) {
  TestFolder folder;
  StoreOptions options = options_for("exact");
  options.index_in_search = 200;
  const auto store = Store::open(folder.file("memory.db"), options);
  std::vector<Record> records;
  for (size_t i = 0; i < 300; ++i) records.push_back(note("bo", std::to_string(i)));
  const std::vector<std::vector<float>> vectors(records.size(), {1, 2});
  store->add(records, vectors);
  const std::vector<float> query = {2, 1};
  EXPECT_THAT(find(*store, "bo", query, 3).cost.why_scan, testing::HasSubstr("mneme cube index"));
  EXPECT_EQ(store->vectors().refresh(user("bo")), "exact");
  EXPECT_EQ(find(*store, "bo", query, 3).cost.way, "exact");
  // Far behind counts as much.
  for (size_t i = 0; i < records.size(); ++i) records[i].text += " again";
  store->add(records, vectors);
  EXPECT_THAT(find(*store, "bo", query, 3).cost.why_scan, testing::HasSubstr("far behind"));
  EXPECT_EQ(store->vectors().refresh(user("bo")), "exact");
  EXPECT_EQ(find(*store, "bo", query, 3).cost.caught_up, 0u);
  EXPECT_EQ(store->vectors().refresh(user("nobody")), "no vectors");
}

class KeptIndexOnEachDatabase : public OnEachDatabase {};
MNEME_ON_EACH_DATABASE(KeptIndexOnEachDatabase);

TEST_P(KeptIndexOnEachDatabase, SearchesAndErases) {
  StoreOptions options = options_for("");
  options.index_folder = folder_.file("indexes");
  const auto store = Store::open(location_, options);
  const std::vector<std::string> ids = add_rows(*store, "bo", 0, 400);
  VectorSearchCost cost;
  EXPECT_EQ(recall_of(*store, "bo", 10, 10, {}, &cost), 1);
  EXPECT_EQ(cost.way, "exact") << cost.why_scan;
  erase(*store, user("bo"), std::vector{ids[4]}, {.verify = true});
  EXPECT_EQ(traces_of(folder_.path(), row(4)), "");
  EXPECT_EQ(recall_of(*store, "bo", 10, 10), 1);
  store->check();
}

}  // namespace
}  // namespace mneme::recall
