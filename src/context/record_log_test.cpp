#include "context/record_log.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "base/test_error.h"

namespace mneme {
namespace {

class RecordLogTest : public testing::Test {
 protected:
  RecordLogTest()
      : path_((std::filesystem::temp_directory_path() / ("mneme-log-" + std::to_string(::getpid()))).string()) {
    std::filesystem::remove(path_);
  }
  ~RecordLogTest() override { std::filesystem::remove(path_); }

  static void append(RecordLog& log, uint32_t kind, const std::string& text) {
    log.append(kind, [&](StateWriter& out) { out.write(std::as_bytes(std::span(text))); });
  }
  std::string content() const {
    const MappedFile file(path_);
    return {reinterpret_cast<const char*>(file.bytes().data()), file.size()};
  }
  /// What a reader makes of `file`: the payloads, "?" for damaged ones.
  static std::vector<std::string> read(const std::string& file, bool* damaged = nullptr) {
    RecordScanner scanner(std::as_bytes(std::span(file)));
    std::vector<std::string> out;
    while (const auto record = scanner.next()) {
      out.push_back(record->intact()
                        ? std::string(reinterpret_cast<const char*>(record->payload.data()), record->payload.size())
                        : "?");
    }
    if (damaged != nullptr) *damaged = scanner.damaged();
    return out;
  }

  std::string path_;
};

TEST_F(RecordLogTest, BringsBackWhatWasAppended) {
  const std::string large(700000, 'x');
  {
    RecordLog log(path_);
    append(log, 7, "one");
    append(log, 8, large);
    append(log, 9, "");
    EXPECT_EQ(log.bytes(),
              RecordLog::record_bytes(3) + RecordLog::record_bytes(large.size()) + RecordLog::record_bytes(0));
    log.sync();
    EXPECT_NE(error_of([&] { RecordLog second(path_); }).find("in use by another process"), std::string::npos);
  }
  EXPECT_EQ(read(content()), (std::vector<std::string>{"one", large, ""}));

  RecordLog log(path_);
  log.cut(RecordLog::record_bytes(3), 1);
  append(log, 7, "two");
  log.rename(path_ + ".other");
  std::filesystem::rename(path_ + ".other", path_);
  EXPECT_EQ(read(content()), (std::vector<std::string>{"one", "two"}));
}

// A file cut anywhere gives the records before the cut. A byte changed anywhere costs at most the record it is in, and
// is noticed, except in the head of the last record, where it looks like a write that was cut short.
TEST_F(RecordLogTest, CutsAndFlippedBytesAreNoticed) {
  {
    RecordLog log(path_);
    append(log, 1, "first");
    append(log, 2, "the second");
    append(log, 3, "3");
    log.flush();
  }
  const std::string whole = content();
  const std::vector<std::string> all = {"first", "the second", "3"};
  ASSERT_EQ(read(whole), all);
  for (size_t n = 0; n < whole.size(); ++n) {
    bool damaged = true;
    const auto got = read(whole.substr(0, n), &damaged);
    ASSERT_LT(got.size(), 3u);
    EXPECT_FALSE(damaged);
    for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], all[i]);
  }
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ 0x10);
    bool damaged = false;
    const auto got = read(flipped, &damaged);
    ASSERT_GE(got.size(), 2u);
    EXPECT_NE(got, all) << "byte " << at;
    std::vector<std::string> rest;
    for (const std::string& text : got) {
      if (text != "?") rest.push_back(text);
    }
    EXPECT_EQ(rest.size(), 2u);
    for (const std::string& text : rest) EXPECT_NE(std::find(all.begin(), all.end(), text), all.end());
    const bool in_last_head = at >= whole.size() - RecordLog::record_bytes(1) && at < whole.size() - 8;
    EXPECT_EQ(damaged || got.size() == 3, !in_last_head) << "byte " << at;
  }
}

}  // namespace
}  // namespace mneme
