#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/mapped_file.h"

namespace mneme {
namespace {

namespace fs = std::filesystem;

class FileTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("mneme_file_test_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const char* name) const { return (folder_ / name).string(); }

  fs::path folder_;
};

TEST_F(FileTest, CommittedFileIsReadBack) {
  const std::string big(3 << 20, 'x');
  AtomicFile out(path("a"));
  out.write("head");
  out.write(big);
  EXPECT_EQ(out.offset(), 4 + big.size());
  EXPECT_FALSE(fs::exists(path("a")));
  out.commit();
  EXPECT_EQ(read_text_file(path("a")), "head" + big);
}

TEST_F(FileTest, WithoutCommitTheOldFileStays) {
  {
    AtomicFile out(path("a"));
    out.write("old");
    out.commit();
  }
  {
    AtomicFile out(path("a"));
    out.write("new");
  }
  EXPECT_EQ(read_text_file(path("a")), "old");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
}

TEST_F(FileTest, ErrorsNameThePath) {
  try {
    MappedFile file(path("missing"));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNotFound);
    EXPECT_NE(std::string(e.what()).find("missing"), std::string::npos);
  }
  EXPECT_THROW(MappedFile(folder_.string()), Error);
  EXPECT_THROW(AtomicFile(path("no/such/folder")), Error);
}

TEST_F(FileTest, EmptyAndOversizedFiles) {
  AtomicFile(path("empty")).commit();
  EXPECT_EQ(MappedFile(path("empty")).size(), 0u);
  AtomicFile out(path("five"));
  out.write("12345");
  out.commit();
  EXPECT_THROW(read_text_file(path("five"), 4), Error);
  MappedFile mapped(path("five"));
  mapped.will_need(0, 5);
  mapped.release(0, 5);
  EXPECT_EQ(static_cast<char>(mapped.bytes()[4]), '5');
}

}  // namespace
}  // namespace mneme
