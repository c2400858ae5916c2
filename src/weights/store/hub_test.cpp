#include "weights/store/hub.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace mneme {
namespace {

using testing::HasSubstr;

TEST(HubReference, FormsThatAreUnderstood) {
  const auto plain = parse_hub_reference("owner/repo-1.5");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->owner, "owner");
  EXPECT_EQ(plain->repository, "repo-1.5");
  EXPECT_EQ(plain->revision, "main");
  EXPECT_EQ(plain->selector, "");
  const auto full = parse_hub_reference("o/r@refs/pr/1:dir/model-Q4_K_M.gguf");
  ASSERT_TRUE(full);
  EXPECT_EQ(full->name(), "o/r");
  EXPECT_EQ(full->revision, "refs/pr/1");
  EXPECT_EQ(full->selector, "dir/model-Q4_K_M.gguf");
  for (const char* bad : {"", "name", "a/b/c", "/b", "a/", "../b", "a/..", "a/.b", "-a/b", "a b/c", "a/b:", "a/b@",
                          "a/b:../x", "a/b:/etc/passwd", "a/b:x\\y", "a/b:x\ny", "./model.gguf"}) {
    EXPECT_FALSE(parse_hub_reference(bad)) << bad;
  }
}

TEST(HubReference, SafePaths) {
  EXPECT_TRUE(is_safe_relative_path("a/b c/d.gguf"));
  for (const char* bad : {"", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a\\b", "a\x01"}) {
    EXPECT_FALSE(is_safe_relative_path(bad)) << bad;
  }
}

TEST(HubReference, ShardNames) {
  const auto shard = parse_shard_name("dir/m-00002-of-00005.gguf");
  ASSERT_TRUE(shard);
  EXPECT_EQ(shard->number, 2u);
  EXPECT_EQ(shard->count, 5u);
  EXPECT_EQ(shard->file(5), "dir/m-00005-of-00005.gguf");
  for (const char* bad :
       {"m.gguf", "m-00000-of-00005.gguf", "m-00006-of-00005.gguf", "m-0001-of-0005.gguf", "m-00001-to-00005.gguf",
        "-00001-of-99999.gguf", "m-00001-of-00005", "x00001-of-00002.gguf"}) {
    EXPECT_FALSE(parse_shard_name(bad)) << bad;
  }
}

std::vector<HubFile> repository() {
  return {{"README.md", 10, ""},
          {"config.json", 20, ""},
          {"m-Q4_0.gguf", 100, ""},
          {"m-Q4_K_M.gguf", 110, ""},
          {"m-Q8_0.gguf", 200, ""},
          {"mmproj-Q8_0.gguf", 50, ""},
          {"big/m-BF16-00001-of-00002.gguf", 400, ""},
          {"big/m-BF16-00002-of-00002.gguf", 300, ""}};
}

std::vector<std::string> chosen(const std::vector<HubFile>& files, const std::string& reference) {
  std::vector<std::string> paths;
  for (const HubFile& file : choose_hub_files(files, *parse_hub_reference(reference))) paths.push_back(file.path);
  return paths;
}

std::string error_of(const std::vector<HubFile>& files, const std::string& reference) {
  try {
    chosen(files, reference);
  } catch (const Error& e) {
    return std::string(e.what()) + " | " + e.hint();
  }
  return "no error";
}

TEST(ChooseHubFiles, ByQuantisationFileOrNothing) {
  using testing::ElementsAre;
  EXPECT_THAT(chosen(repository(), "o/r"), ElementsAre("m-Q4_K_M.gguf"));
  EXPECT_THAT(chosen(repository(), "o/r:q8_0"), ElementsAre("m-Q8_0.gguf"));
  EXPECT_THAT(chosen(repository(), "o/r:Q4_0"), ElementsAre("m-Q4_0.gguf"));
  EXPECT_THAT(chosen(repository(), "o/r:README.md"), ElementsAre("README.md"));
  EXPECT_THAT(chosen(repository(), "o/r:bf16"),
              ElementsAre("big/m-BF16-00001-of-00002.gguf", "big/m-BF16-00002-of-00002.gguf"));
  EXPECT_THAT(chosen({{"only.gguf", 1, ""}}, "o/r"), ElementsAre("only.gguf"));
}

TEST(ChooseHubFiles, CheckpointsComeWithTheirConfiguration) {
  const std::vector<HubFile> files = {{"config.json", 1, ""},       {"model-00001-of-00002.safetensors", 1, ""},
                                      {"tokenizer.json", 1, ""},    {"model-00002-of-00002.safetensors", 1, ""},
                                      {"tokenizer.model", 1, ""},   {"model.safetensors.index.json", 1, ""},
                                      {"pytorch_model.bin", 1, ""}, {"onnx/model.safetensors", 1, ""}};
  EXPECT_EQ(chosen(files, "o/r:safetensors").size(), 6u);
  EXPECT_THAT(error_of(files, "o/r"), HasSubstr("o/r:safetensors"));
  EXPECT_THAT(error_of(repository(), "o/r:safetensors"), HasSubstr("no .safetensors"));
}

TEST(ChooseHubFiles, MistakesListWhatThereIs) {
  EXPECT_THAT(error_of(repository(), "o/r:Q2_K"),
              testing::AllOf(HasSubstr("no 'Q2_K'"), HasSubstr("m-Q8_0.gguf (200 B)")));
  EXPECT_THAT(error_of({{"a-Q8_0.gguf", 1, ""}, {"b-Q8_0.gguf", 1, ""}}, "o/r:Q8_0"), HasSubstr("may be a-Q8_0.gguf"));
  EXPECT_THAT(error_of({{"a-x.gguf", 1, ""}, {"b-y.gguf", 1, ""}}, "o/r"), HasSubstr("several models"));
  EXPECT_THAT(error_of({{"m-Q8_0-00001-of-00002.gguf", 1, ""}}, "o/r:Q8_0"),
              HasSubstr("shard m-Q8_0-00002-of-00002.gguf"));
  EXPECT_THAT(error_of({}, "o/r"), HasSubstr("no GGUF file"));
}

}  // namespace
}  // namespace mneme
