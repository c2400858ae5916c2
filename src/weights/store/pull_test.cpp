#include "weights/store/pull.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/json.h"
#include "weights/store/model_store.h"
#include "weights/store/sha256.h"
#include "weights/store/test_server.h"

namespace mneme {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

std::string sha256_of(const std::string& text) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(text.data(), text.size())));
  return hash.hex();
}

void write(const std::string& path, const std::string& text) {
  fs::create_directories(fs::path(path).parent_path());
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

/// A hub on loopback with one repository, its listing in pages of two files.
class PullTest : public FolderTest {
 protected:
  PullTest() {
    options_.hub.url = server_.url("/hub");
    options_.hub.token = "secret";
    options_.download.first_wait = std::chrono::milliseconds(1);
    server_.routes().Get(
        "/hub/api/models/o/r/tree/main", [this](const httplib::Request& request, httplib::Response& response) {
          const size_t page = parse_decimal(request.get_param_value("cursor")).value_or(0);
          Json list = Json::array({{{"type", "directory"}, {"path", "dir"}, {"size", 0}}});
          for (size_t i = 2 * page; i < std::min(listing_.size(), 2 * page + 2); ++i) list.push_back(listing_[i]);
          if (2 * page + 2 < listing_.size()) {
            response.set_header("Link",
                                "<" + server_.url("/hub/api/models/o/r/tree/main?cursor=" + std::to_string(page + 1)) +
                                    ">; rel=\"next\"");
          }
          response.set_content(list.dump(), "application/json");
        });
  }
  void SetUp() override {
    FolderTest::SetUp();
    options_.store = path("store");
  }

  ServedFile& add(const std::string& name, const std::string& content, bool large = true) {
    files_.push_back(std::make_unique<ServedFile>());
    ServedFile& file = *files_.back();
    file.content = content;
    file.etag = "\"" + name + "\"";
    Json entry = {{"type", "file"}, {"path", name}, {"size", content.size()}};
    if (large) entry["lfs"] = {{"oid", sha256_of(content)}, {"size", content.size()}};
    listing_.push_back(entry);
    server_.serve("/hub/o/r/resolve/main/" + name, file);
    return file;
  }
  std::string error_of(const std::string& name) {
    try {
      pull_model(name, options_);
    } catch (const Error& e) {
      return std::string(e.what()) + " | " + e.hint();
    }
    return "no error";
  }

  std::vector<std::unique_ptr<ServedFile>> files_;
  Json listing_ = Json::array();
  TestServer server_;
  PullOptions options_;
};

TEST_F(PullTest, QuantisationOfARepository) {
  add("README.md", "text", false);
  add("m-Q4_K_M.gguf", std::string(5000, 'k'));
  add("m-Q8_0.gguf", std::string(9000, 'q'));
  std::vector<std::string> announced;
  options_.on_file = [&](const std::string& name, size_t index, size_t count) {
    announced.push_back(name + std::to_string(index) + std::to_string(count));
  };
  const PullResult result = pull_model("o/r:Q8_0", options_);
  EXPECT_EQ(result.path, path("store/o/r/m-Q8_0.gguf"));
  ASSERT_EQ(result.files.size(), 1u);
  EXPECT_TRUE(result.files[0].download.verified);
  EXPECT_EQ(read_text_file(result.path), std::string(9000, 'q'));
  EXPECT_THAT(announced, testing::ElementsAre("m-Q8_0.gguf01"));
  EXPECT_EQ(server_.authorizations().back(), "Bearer secret");
  EXPECT_EQ(resolve_model("o/r:q8_0", options_.store), result.path);
  EXPECT_EQ(resolve_model("o/r", options_.store), result.path);
  EXPECT_EQ(resolve_model("m-Q8_0", options_.store), result.path);
  EXPECT_EQ(resolve_model("m-Q8_0.gguf", options_.store), result.path);
  EXPECT_EQ(resolve_model(result.path, options_.store), result.path);
}

TEST_F(PullTest, WhatIsThereIsNotFetchedAgain) {
  ServedFile& model = add("m.gguf", "one");
  pull_model("o/r", options_);
  const size_t before = server_.n_requests();
  EXPECT_TRUE(pull_model("o/r", options_).files[0].was_present);
  EXPECT_EQ(server_.n_requests(), before);
  // A new version upstream replaces it.
  model.content = "two";
  listing_[0]["lfs"]["oid"] = sha256_of("two");
  const PullResult result = pull_model("o/r", options_);
  EXPECT_FALSE(result.files[0].was_present);
  EXPECT_EQ(read_text_file(result.path), "two");
}

TEST_F(PullTest, VerifyFindsDamage) {
  add("m.gguf", "good");
  const std::string file = pull_model("o/r", options_).path;
  write(file, "evil");
  EXPECT_TRUE(pull_model("o/r", options_).files[0].was_present);
  options_.verify = true;
  EXPECT_FALSE(pull_model("o/r", options_).files[0].was_present);
  EXPECT_EQ(read_text_file(file), "good");
}

TEST_F(PullTest, FileOfUnknownOriginIsKeptWhenItsDigestFits) {
  add("m.gguf", "good");
  write(path("store/o/r/m.gguf"), "good");
  EXPECT_TRUE(pull_model("o/r", options_).files[0].was_present);
  write(path("store/o/r/m.gguf"), "evil");
  EXPECT_FALSE(pull_model("o/r", options_).files[0].was_present);
}

TEST_F(PullTest, ShardsComeTogether) {
  add("dir/m-Q8_0-00001-of-00003.gguf", "a");
  add("dir/m-Q8_0-00002-of-00003.gguf", "b");
  add("dir/m-Q8_0-00003-of-00003.gguf", "c");
  const PullResult result = pull_model("o/r:Q8_0", options_);
  ASSERT_EQ(result.files.size(), 3u);
  EXPECT_EQ(result.path, path("store/o/r/dir/m-Q8_0-00001-of-00003.gguf"));
  EXPECT_EQ(read_text_file(path("store/o/r/dir/m-Q8_0-00003-of-00003.gguf")), "c");
  EXPECT_EQ(resolve_model("o/r:Q8_0", options_.store), result.path);
}

TEST_F(PullTest, CheckpointIsAFolder) {
  add("config.json", "{}", false);
  add("model.safetensors", "tensors");
  const PullResult result = pull_model("o/r:safetensors", options_);
  EXPECT_EQ(result.path, path("store/o/r"));
  EXPECT_EQ(result.files.size(), 2u);
  EXPECT_EQ(resolve_model("o/r:safetensors", options_.store), result.path);
  EXPECT_TRUE(pull_model("o/r:safetensors", options_).files[0].was_present);  // By its tag: the hub gives no digest.
}

TEST_F(PullTest, DigestOfTheListingIsChecked) {
  add("m.gguf", "good").content = "evil";
  EXPECT_THAT(error_of("o/r"), HasSubstr("expected SHA-256 " + sha256_of("good")));
  EXPECT_THROW(resolve_model("o/r", options_.store), Error);
}

TEST_F(PullTest, SpaceIsCheckedForAllFilesBeforeTheFirst) {
  add("m-00001-of-00002.gguf", std::string(600, 'a'));
  add("m-00002-of-00002.gguf", std::string(600, 'b'));
  options_.download.spare_bytes = 0;
  options_.download.free_bytes = [](const std::string&) { return uint64_t{1000}; };
  EXPECT_THAT(error_of("o/r"), testing::AllOf(HasSubstr("2 files need 1200 more bytes"), HasSubstr("has 1000")));
  EXPECT_EQ(server_.n_requests(), 0u);
}

TEST_F(PullTest, PlainUrl) {
  ServedFile file;
  file.content = "model";
  file.etag = "\"v1\"";
  server_.serve("/dir/x.gguf", file);
  const PullResult result = pull_model(server_.url("/dir/x.gguf?download=true"), options_);
  EXPECT_THAT(result.path, testing::EndsWith("/dir/x.gguf"));
  EXPECT_TRUE(result.path.starts_with(options_.store));
  EXPECT_EQ(server_.authorizations().back(), "");  // The hub's token is for the hub.
  EXPECT_TRUE(pull_model(server_.url("/dir/x.gguf?download=true"), options_).files[0].was_present);
  file.content = "newer";
  file.etag = "\"v2\"";
  EXPECT_FALSE(pull_model(server_.url("/dir/x.gguf?download=true"), options_).files[0].was_present);
  EXPECT_EQ(read_text_file(result.path), "newer");
  EXPECT_EQ(resolve_model("x.gguf", options_.store), result.path);
  options_.sha256 = sha256_of("other");
  EXPECT_THAT(error_of(server_.url("/dir/x.gguf")), HasSubstr("SHA-256"));
}

TEST_F(PullTest, ShardsOfAUrl) {
  ServedFile first, second;
  first.content = "1";
  second.content = "2";
  server_.serve("/m-00001-of-00002.gguf", first);
  server_.serve("/m-00002-of-00002.gguf", second);
  EXPECT_EQ(pull_model(server_.url("/m-00001-of-00002.gguf"), options_).files.size(), 2u);
  options_.sha256 = sha256_of("1");
  EXPECT_THAT(error_of(server_.url("/m-00001-of-00002.gguf")), HasSubstr("is 2 files"));
}

TEST_F(PullTest, MistakesAreNamed) {
  EXPECT_THAT(error_of("nonsense"), HasSubstr("OWNER/REPO"));
  EXPECT_THAT(error_of("o/unknown"), HasSubstr("no such repository"));
  EXPECT_THAT(error_of(server_.url("")), HasSubstr("URL of a file"));
  EXPECT_THAT(error_of(server_.url("/a/../../../etc/x")), HasSubstr("URL of a file"));
  server_.routes().Get("/hub/api/models/o/bad/tree/main", [](const httplib::Request&, httplib::Response& response) {
    response.set_content("[{\"type\": \"file\"}]", "application/json");
  });
  EXPECT_THAT(error_of("o/bad"), HasSubstr("lacks its path or size"));
  server_.routes().Get("/hub/api/models/o/html/tree/main", [](const httplib::Request&, httplib::Response& response) {
    response.set_content("<html>", "text/html");
  });
  EXPECT_THAT(error_of("o/html"), HasSubstr("parse JSON"));
}

TEST_F(PullTest, PathsOfAListingStayInTheStore) {
  add("m.gguf", "good");
  listing_.push_back({{"type", "file"}, {"path", "../../evil.gguf"}, {"size", 4}});
  const PullResult result = pull_model("o/r", options_);
  EXPECT_EQ(result.path, path("store/o/r/m.gguf"));
}

TEST_F(PullTest, UnknownNamesSayWhatToDo) {
  write(path("store/a/b/twice.gguf"), "1");
  write(path("store/c/d/twice.gguf"), "2");
  EXPECT_THROW(resolve_model("twice", options_.store), Error);
  try {
    resolve_model("o/r:Q4_0", options_.store);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNotFound);
    EXPECT_EQ(e.hint(), "mneme pull o/r:Q4_0 fetches it");
  }
}

TEST(ModelStore, FolderComesFromTheEnvironment) {
  const auto saved = [](const char* name) { return ::getenv(name) ? std::string(::getenv(name)) : std::string(); };
  const std::string models = saved("MNEME_MODELS"), cache = saved("XDG_CACHE_HOME"), home = saved("HOME");
  ::setenv("MNEME_MODELS", "/m", 1);
  EXPECT_EQ(model_store_folder(), "/m");
  ::unsetenv("MNEME_MODELS");
  ::setenv("XDG_CACHE_HOME", "/c", 1);
  EXPECT_EQ(model_store_folder(), "/c/mneme");
  ::unsetenv("XDG_CACHE_HOME");
  ::setenv("HOME", "/h", 1);
  EXPECT_EQ(model_store_folder(), "/h/.cache/mneme");
  ::unsetenv("HOME");
  EXPECT_THROW(model_store_folder(), Error);
  const auto restore = [](const char* name, const std::string& value) {
    if (!value.empty()) ::setenv(name, value.c_str(), 1);
  };
  restore("MNEME_MODELS", models);
  restore("XDG_CACHE_HOME", cache);
  restore("HOME", home);
}

TEST(Hub, TokenBelongsToItsHub) {
  ::setenv("HF_TOKEN", "hf", 1);
  ::unsetenv("MNEME_HUB");
  ::unsetenv("MNEME_HUB_TOKEN");
  EXPECT_EQ(Hub::from_environment().token, "hf");
  EXPECT_EQ(Hub::from_environment("https://other/").token, "");
  EXPECT_EQ(Hub::from_environment("https://other/").url, "https://other");
  ::setenv("MNEME_HUB", "http://mirror", 1);
  EXPECT_EQ(Hub::from_environment().url, "http://mirror");
  EXPECT_EQ(Hub::from_environment().token, "");
  ::setenv("MNEME_HUB_TOKEN", "own", 1);
  EXPECT_EQ(Hub::from_environment().token, "own");
  ::unsetenv("MNEME_HUB");
  ::unsetenv("MNEME_HUB_TOKEN");
  ::unsetenv("HF_TOKEN");
  HubReference reference = *parse_hub_reference("o/r:x");
  EXPECT_EQ(Hub().file_url(reference, "dir/a b.gguf"), "https://huggingface.co/o/r/resolve/main/dir/a%20b.gguf");
}

}  // namespace
}  // namespace mneme
