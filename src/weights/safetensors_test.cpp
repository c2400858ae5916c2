#include "weights/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "weights/gguf_test_bytes.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// A file from header text and a number of data bytes.
std::string file_of(const std::string& header, size_t data_bytes) {
  GgufTestBytes bytes;
  bytes.number<uint64_t>(header.size());
  std::string out = bytes.text() + header;
  for (size_t i = 0; i < data_bytes; ++i) out.push_back(static_cast<char>(i));
  return out;
}

std::vector<SafeTensor> parse(const std::string& file) {
  return parse_safetensors(std::as_bytes(std::span(file.data(), file.size())), "x.safetensors");
}

std::string refusal(const std::string& file) {
  try {
    (void)parse(file);
  } catch (const Error& e) {
    const std::string message = e.what();
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_THAT(message, HasSubstr("x.safetensors"));
    return message;
  }
  return "no error";
}

std::string refusal(const std::string& header, size_t data_bytes) {
  return refusal(file_of(header, data_bytes));
}

TEST(Safetensors, ReadsEveryPart) {
  const std::string file = file_of(R"({"__metadata__":{"format":"pt"},)"
                                   R"("b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},)"
                                   R"("a":{"data_offsets":[0,4],"dtype":"F32","shape":[]},)"
                                   R"("none":{"dtype":"I64","shape":[0,5],"data_offsets":[16,16]},)"
                                   R"("f4":{"dtype":"F4","shape":[2],"data_offsets":[16,17]}}   )",
                                   17);
  const std::vector<SafeTensor> tensors = parse(file);
  ASSERT_EQ(tensors.size(), 4u);
  EXPECT_EQ(tensors[0].name, "a");
  EXPECT_TRUE(tensors[0].shape.empty());
  EXPECT_EQ(tensors[0].bytes.size(), 4u);
  EXPECT_EQ(tensors[1].name, "b");
  EXPECT_EQ(tensors[1].dtype, DType::kBF16);
  EXPECT_THAT(tensors[1].shape, ElementsAre(2u, 3u));
  EXPECT_EQ(tensors[1].bytes[0], std::byte{4});
  EXPECT_TRUE(tensors[2].bytes.empty());
  EXPECT_EQ(tensors[3].dtype, std::nullopt);
  EXPECT_EQ(tensors[3].dtype_name, "F4");
}

TEST(Safetensors, RefusesBadHeaders) {
  EXPECT_THAT(refusal("1234567"), HasSubstr("at least 8 bytes, found 7"));
  EXPECT_THAT(refusal(GgufTestBytes().number<uint64_t>(5).text() + "{}"),
              HasSubstr("at most 2 bytes, found a size of 5"));
  EXPECT_THAT(refusal(GgufTestBytes().number(~uint64_t{0}).text() + "{}"), HasSubstr("18446744073709551615"));
  EXPECT_THAT(refusal("", 0), HasSubstr("begins with '{'"));
  EXPECT_THAT(refusal(" {}", 0), HasSubstr("begins with '{'"));
  EXPECT_THAT(refusal("{", 0), HasSubstr("bad syntax"));
  EXPECT_THAT(refusal("{} x", 0), HasSubstr("bad syntax"));
  EXPECT_THAT(refusal("{\"\xff\":{}}", 0), HasSubstr("bad syntax"));
  EXPECT_THAT(refusal(R"({"a":[]})", 0), HasSubstr("key 'a': expected an object, found an array"));
  EXPECT_THAT(refusal(R"({"a":1})", 0), HasSubstr("found a number"));
  EXPECT_THAT(refusal(R"({"__metadata__":{"a":1}})", 0), HasSubstr("'__metadata__': expected strings, found a number"));
  EXPECT_THAT(refusal(R"({"__metadata__":{"a":{"b":"c"}}})", 0), HasSubstr("'__metadata__': expected strings"));
  EXPECT_EQ(refusal("{}", 0), "no error");
  EXPECT_THAT(refusal("{}", 1), HasSubstr("expected tensors to fill 1 bytes of data, found 0"));
}

std::string entry(const std::string& name, const std::string& body) {
  return fmt::format("\"{}\":{{{}}}", name, body);
}

std::string one(const std::string& body) {
  return fmt::format("{{{}}}", entry("a", body));
}

TEST(Safetensors, RefusesBadTensors) {
  const std::string good = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";
  EXPECT_EQ(refusal(one(good), 8), "no error");
  EXPECT_THAT(refusal(fmt::format("{{{},{}}}", entry("a", good), entry("a", good)), 8), HasSubstr("'a' again"));
  EXPECT_THAT(refusal(one(good + R"(,"dtype":"F16")"), 8), HasSubstr("'dtype' again"));
  EXPECT_THAT(refusal(one(good + R"(,"stride":[1])"), 8), HasSubstr("'a': expected dtype, shape"));
  EXPECT_THAT(refusal(one(R"("dtype":"F32","shape":[2])"), 8), HasSubstr("'a': expected dtype, shape"));
  const auto with = [](const char* dtype, const char* shape, const char* offsets) {
    return one(fmt::format(R"("dtype":"{}","shape":{},"data_offsets":{})", dtype, shape, offsets));
  };
  EXPECT_THAT(refusal(with("F33", "[2]", "[0,8]"), 8), HasSubstr("'a': expected a known dtype, found 'F33'"));
  EXPECT_THAT(refusal(with("F32", "[-2]", "[0,8]"), 8), HasSubstr("found a negative number"));
  EXPECT_THAT(refusal(with("F32", "[2.0]", "[0,8]"), 8), HasSubstr("found a fraction"));
  EXPECT_THAT(refusal(with("F32", "[[2]]", "[0,8]"), 8), HasSubstr("found an array"));
  EXPECT_THAT(refusal(with("F32", "[2]", "[0,8,9]"), 8), HasSubstr("two data_offsets"));
  EXPECT_THAT(refusal(with("F32", "[2]", "[0,9]"), 9), HasSubstr("'a': expected 8 bytes, found data_offsets [0, 9]"));
  EXPECT_THAT(refusal(with("F32", "[2]", "[8,0]"), 8), HasSubstr("'a': expected 8 bytes"));
  EXPECT_THAT(refusal(with("F32", "[2]", "[0,8]"), 7), HasSubstr("'a': file truncated: need"));
  EXPECT_THAT(refusal(with("F32", "[2]", "[1,9]"), 9), HasSubstr("'a': expected data from 0 on"));
  EXPECT_THAT(refusal(with("F4", "[3]", "[0,2]"), 2), HasSubstr("'a': expected a shape of whole bytes"));
  EXPECT_THAT(refusal(with("F32", "[4294967296,4294967296]", "[0,8]"), 8), HasSubstr("'a': expected a shape"));
  EXPECT_THAT(refusal(with("F32", "[18446744073709551616]", "[0,8]"), 8), HasSubstr("'a'"));
  const std::string second = R"("dtype":"F32","shape":[1],"data_offsets":[4,8])";
  EXPECT_THAT(refusal(fmt::format("{{{},{}}}", entry("a", good), entry("b", second)), 8),
              HasSubstr("'b': expected data from 8 on"));
}

TEST(Safetensors, DeepNestingEndsAtOnce) {
  EXPECT_THAT(refusal("{\"a\":" + std::string(1'000'000, '['), 0), HasSubstr("found an array"));
}

TEST(Safetensors, TruncatedAnywhereIsAnError) {
  const std::string file = file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8);
  for (size_t n = 0; n < file.size(); ++n) EXPECT_NE(refusal(file.substr(0, n)), "no error") << n;
}

TEST(SafetensorsSet, FilesOfAnIndex) {
  const TestFolder folder;
  const std::string one = file_of(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 2);
  const std::string two = file_of(R"({"b":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", 3);
  folder.write("m-1.safetensors", one);
  folder.write("m-2.safetensors", two);
  const auto open = [&](const std::string& map) {
    folder.write("model.safetensors.index.json", R"({"metadata":{"total_size":5},"weight_map":)" + map + "}");
    try {
      return std::to_string(SafetensorsSet::open(folder.path().string()).tensors().size()) + " tensors";
    } catch (const Error& e) {
      return std::string(e.what());
    }
  };
  EXPECT_EQ(open(R"({"a":"m-1.safetensors","b":"m-2.safetensors"})"), "2 tensors");
  EXPECT_THAT(open(R"({"a":"m-2.safetensors"})"), HasSubstr("'a': expected it in m-2.safetensors"));
  EXPECT_THAT(open(R"({"a":"m-1.safetensors","b":"m-1.safetensors"})"),
              HasSubstr("'b': expected it in m-1.safetensors"));
  EXPECT_THAT(open(R"({"a":"../m-1.safetensors"})"), HasSubstr("plain file name"));
  EXPECT_THAT(open(R"({"a":".."})"), HasSubstr("plain file name"));
  EXPECT_THAT(open(R"({"a":"m-3.safetensors"})"), HasSubstr("m-3.safetensors"));
  EXPECT_THAT(open(R"({"a":7})"), HasSubstr("'a': expected a file name"));
  EXPECT_THAT(open(R"({})"), HasSubstr("'weight_map'"));
  EXPECT_THAT(open(R"([])"), HasSubstr("'weight_map'"));
  folder.write("m-2.safetensors", one);
  EXPECT_THAT(open(R"({"a":"m-1.safetensors","c":"m-2.safetensors"})"), HasSubstr("'a': expected it in one file"));
}

TEST(SafetensorsSet, SingleFileByFolderOrName) {
  const TestFolder folder;
  const std::string path =
      folder.write("model.safetensors", file_of(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 2));
  EXPECT_NE(SafetensorsSet::open(path).find("a"), nullptr);
  const SafetensorsSet set = SafetensorsSet::open(folder.path().string());
  EXPECT_EQ(set.files().size(), 1u);
  EXPECT_EQ(set.find("b"), nullptr);
}

}  // namespace
}  // namespace mneme
