// What was acknowledged is there after a kill, a power cut or a full disk, and nothing is half-written.
// MNEME_SOAK_RUNS says how often processes are killed (scripts/soak-recall runs 300).

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <map>

#include "base/philox.h"
#include "base/test_error.h"
#include "recall/schema.h"
#include "recall/sql/fault_disk.h"
#include "recall/sql/sqlite_database.h"
#include "recall/test_stores.h"

namespace mneme::recall {
namespace {

int n_runs() {
  const char* runs = std::getenv("MNEME_SOAK_RUNS");
  return runs != nullptr ? std::atoi(runs) : 12;
}

/// What a child says when a change is durable: the id and the version that it has now.
struct Acknowledged {
  char id[16];
  uint32_t version;
};

void acknowledge(int pipe, const std::string& id, uint32_t version) {
  Acknowledged said{};
  id.copy(said.id, sizeof(said.id));
  said.version = version;
  if (write(pipe, &said, sizeof(said)) != sizeof(said)) _exit(3);
}

/// Runs `work`, which has no end, in a process of its own and kills it after some time, with `after_one` counted from its
/// first acknowledgement; returns what it acknowledged.
std::map<std::string, uint32_t> run_and_kill(uint64_t microseconds, bool after_one,
                                             const std::function<void(int pipe)>& work) {
  int ends[2];
  if (pipe(ends) != 0) throw std::runtime_error("no pipe");
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    try {
      work(ends[1]);
    } catch (...) {
      _exit(2);
    }
    _exit(0);
  }
  close(ends[1]);
  std::map<std::string, uint32_t> all;
  Acknowledged said{};
  if (after_one && read(ends[0], &said, sizeof(said)) == sizeof(said)) {
    all[std::string(said.id, sizeof(said.id))] = said.version;
  }
  usleep(static_cast<useconds_t>(microseconds));
  kill(child, SIGKILL);
  while (read(ends[0], &said, sizeof(said)) == sizeof(said)) {
    uint32_t& version = all[std::string(said.id, sizeof(said.id))];
    version = std::max(version, said.version);
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status)) << "the process ended by itself";
  return all;
}

void expect_all(const std::string& location, const std::map<std::string, uint32_t>& acknowledged) {
  const auto store = Store::open(location);
  store->check();
  for (const auto& [id, version] : acknowledged) EXPECT_GE(store->get(user("bo"), id).version, version) << id;
}

/// Kills a process that adds and changes records, again and again.
void kill_writers(const std::string& location, uint64_t most_microseconds) {
  Store::open(location);
  PhiloxStream random(static_cast<uint64_t>(getpid()));
  std::map<std::string, uint32_t> all;
  size_t n = 0;
  int n_with_acknowledged = 0;
  for (int run = 0; run < n_runs(); ++run) {
    const uint64_t time = random.next_below(most_microseconds);
    const std::map<std::string, uint32_t> acknowledged = run_and_kill(time, run % 2 == 1, [&](int pipe) {
      const auto store = Store::open(location);
      for (int i = 0;; ++i) {
        std::vector<Record> records;
        for (int k = 0; k < 5; ++k) records.push_back(note("bo", fmt::format("run {} fact {} {}", run, i, k)));
        const std::vector<Added> added = store->add(records, std::vector<std::vector<float>>(5, {1, 2}));
        for (const Added& each : added) acknowledge(pipe, each.id, 1);
        const Record changed = store->update(user("bo"), added[2].id, [&](Record& r) { r.text += " changed"; });
        acknowledge(pipe, changed.id, changed.version);
        store->set_state(user("bo"), added[1].id, State::kArchived);
        acknowledge(pipe, added[1].id, 2);
      }
    });
    n_with_acknowledged += acknowledged.empty() ? 0 : 1;
    for (const auto& [id, version] : acknowledged) {
      all[id] = version;
      ++n;
    }
    expect_all(location, all);
  }
  fmt::print("    {} kills, {} after something was acknowledged, {} records compared\n", n_runs(), n_with_acknowledged,
             all.size());
  EXPECT_TRUE(n > 0 || n_runs() < 2);
}

TEST(Crash, KilledWriterLosesNothingAcknowledged) {
  TestFolder folder;
  kill_writers(folder.file("memory.db"), 60'000);
}

/// The client is killed, at any moment between BEGIN and COMMIT; the server lives on.
TEST(Crash, KilledPostgresWriterLosesNothingAcknowledged) {
  if (!PostgresServer::is_installed()) GTEST_SKIP() << "no PostgreSQL server (Debian package postgresql)";
  kill_writers(PostgresServer::shared().new_database(), 60'000);
}

std::unique_ptr<Store> open_on(const FaultDisk& disk) {
  StoreOptions options;
  options.sqlite_vfs = disk.name();
  return Store::open("memory.db", options);
}

/// The power goes before each write and sync of a migration in turn, until one gets to its end.
TEST(Crash, AnInterruptedMigrationCanBeRepeated) {
  PhiloxStream random(22);
  uint64_t n_cuts = 0;
  for (bool finished = false; !finished; ++n_cuts) {
    FaultDisk disk("mneme-migration");
    {
      SqliteOptions options;
      options.vfs = disk.name();
      const auto db = open_sqlite("memory.db", options);
      migrate(*db, 1);
      set_meta(*db, "witness", "kept");
    }
    disk.fail_after(n_cuts);
    try {
      open_on(disk);
      finished = true;
    } catch (const Error&) {
    }
    disk.restart(random);
    const auto store = open_on(disk);
    EXPECT_EQ(meta_value(store->database(), "schema_version"), std::to_string(kSchemaVersion)) << n_cuts;
    EXPECT_EQ(meta_value(store->database(), "witness"), "kept") << n_cuts;
    store->add(note("bo", "it works"));
    store->check();
    ASSERT_LT(n_cuts, 1000u);
  }
  RecordProperty("cuts", std::to_string(n_cuts - 1));
  EXPECT_GT(n_cuts, 5u);
}

TEST(Crash, PowerCutsLoseNothingAcknowledged) {
  PhiloxStream random(21);
  FaultDisk disk("mneme-power");
  std::map<std::string, uint32_t> acknowledged;
  int cuts = 0;
  for (int run = 0; run < 60; ++run) {
    // The first cuts hit the making of the store.
    disk.fail_after(run < 20 ? run * 3 : random.next_below(400));
    try {
      const auto store = open_on(disk);
      for (int i = 0; i < 30; ++i) {
        std::vector<Record> records;
        for (int k = 0; k < 4; ++k) records.push_back(note("bo", fmt::format("run {} fact {} {}", run, i, k)));
        for (const Added& added : store->add(records)) acknowledged[added.id] = 1;
        const std::string id = acknowledged.begin()->first;
        const uint32_t version =
            store->update(user("bo"), id, [&](Record& r) { r.text = fmt::format("{} {}", run, i); }).version;
        acknowledged[id] = version;
      }
    } catch (const Error&) {
      ++cuts;
    }
    disk.restart(random);
    const auto store = open_on(disk);
    ASSERT_NO_THROW(store->check()) << "run " << run;
    for (const auto& [id, version] : acknowledged) {
      ASSERT_GE(store->get(user("bo"), id).version, version) << "run " << run;
    }
  }
  EXPECT_GT(cuts, 30);
}

TEST(Crash, FullDiskIsAnErrorAndNoMore) {
  FaultDisk disk("mneme-full");
  const auto store = open_on(disk);
  store->add(note("bo", "before"));
  disk.set_capacity(1'500'000);
  std::string error;
  size_t stored = 1;
  for (int i = 0; i < 2000 && error.empty(); ++i) {
    std::vector<Record> records;
    for (int k = 0; k < 20; ++k) records.push_back(note("bo", fmt::format("fact {} {} with some words more", i, k)));
    const std::string result = error_of([&] { store->add(records); });
    if (result == "no error") {
      stored += 20;
    } else {
      error = result;
    }
  }
  EXPECT_THAT(error, testing::HasSubstr("full"));
  store->check();
  EXPECT_EQ(store->database().integer("SELECT COUNT(*) FROM record", {}), static_cast<int64_t>(stored));
  disk.set_capacity(0);
  store->add(note("bo", "after"));
  store->check();
}

TEST(Crash, ADamagedPageIsNoticed) {
  TestFolder folder;
  const std::string path = folder.file("memory.db");
  {
    const auto store = Store::open(path);
    for (int i = 0; i < 50; ++i) store->add(note("bo", fmt::format("fact number {}", i)));
    store->database().scrub(false);
  }
  std::FILE* file = std::fopen(path.c_str(), "r+b");
  ASSERT_NE(file, nullptr);
  const std::string noise(4096 * 3, '\x5A');
  std::fseek(file, 4096 * 5, SEEK_SET);
  std::fwrite(noise.data(), 1, noise.size(), file);
  std::fclose(file);
  EXPECT_THAT(error_of([&] { Store::open(path)->check(); }), testing::HasSubstr("memory.db"));
}

}  // namespace
}  // namespace mneme::recall
