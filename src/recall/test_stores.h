#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>

#include "recall/sql/postgres_server.h"
#include "recall/store.h"

namespace mneme::recall {

/// A folder of its own, removed at the end.
class TestFolder {
 public:
  TestFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "mneme-recall-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = name;
  }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  ~TestFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string file(const std::string& name) const { return (path_ / name).string(); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// A clock that tests turn.
struct TestClock {
  Time time = 1'700'000'000'000'000;
  std::function<Time()> source() {
    return [this] { return time += 1000; };
  }
};

inline Scope user(const std::string& name) {
  Scope scope;
  scope.user = name;
  return scope;
}

inline Record note(const std::string& user_name, const std::string& text) {
  Record record;
  record.scope.user = user_name;
  record.text = text;
  return record;
}

/// Tests that run on every kind of database; "sqlite" or "postgres".
class OnEachDatabase : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (GetParam() == "postgres") {
      if (!PostgresServer::is_installed()) GTEST_SKIP() << "no PostgreSQL server (Debian package postgresql)";
      location_ = PostgresServer::shared().new_database();
    } else {
      location_ = folder_.file("memory.db");
    }
  }
  std::unique_ptr<Store> open(Embedder* embedder = nullptr) {
    StoreOptions options;
    options.clock = clock_.source();
    options.embedder = embedder;
    return Store::open(location_, options);
  }

  TestFolder folder_;
  TestClock clock_;
  std::string location_;
};

#define MNEME_ON_EACH_DATABASE(suite)                                                              \
  INSTANTIATE_TEST_SUITE_P(Databases, suite, testing::Values("sqlite", "postgres"),                \
                           [](const auto& each) { return each.param; })

}  // namespace mneme::recall
