#include "weights/gguf_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "base/test_data.h"
#include "weights/gguf_test_bytes.h"

namespace mneme {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint32_t kF32 = 0, kQ8_0 = 8;

/// The message of the error that parsing gives; it must be one line that names the file.
std::string refusal(const GgufTestBytes& file) {
  try {
    (void)parse_gguf(file.bytes(), "x.gguf");
  } catch (const Error& e) {
    const std::string message = e.what();
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_THAT(message, HasSubstr("x.gguf"));
    EXPECT_TRUE(e.code() == ErrorCode::kCorruptData || e.code() == ErrorCode::kUnsupported) << message;
    return message;
  }
  return "no error";
}

/// One file with an entry of every kind and two tensors in reversed order with a gap between them.
GgufTestBytes good_file() {
  GgufTestBytes file;
  file.header(2, 6);
  file.key("general.architecture", ValueType::kString).string("llama");
  file.key("llama.block_count", ValueType::kU8).number<uint8_t>(2);
  file.key("ok", ValueType::kBool).number<uint8_t>(1);
  file.key("llama.eps", ValueType::kF64).number<double>(1e-5);
  file.array("tokens", ValueType::kString, 2).string("a").string("");
  file.array("heads", ValueType::kI32, 2).number<int32_t>(4).number<int32_t>(8);
  file.tensor("second", {32, 3}, kQ8_0, 64);
  file.tensor("first", {5}, kF32, 0);
  file.align();
  const size_t start = file.size();
  for (float value : {1.0f, 2.0f, 3.0f, 4.0f, 5.0f}) file.number(value);
  file.pad_to(start + 64).zeros(3 * 34);
  return file;
}

TEST(GgufReader, ReadsEveryPart) {
  const GgufTestBytes file = good_file();
  const GgufContents contents = parse_gguf(file.bytes(), "x.gguf");
  const Metadata& m = contents.metadata;
  EXPECT_EQ(m.get_string("general.architecture"), "llama");
  EXPECT_EQ(m.get_u64("llama.block_count"), 2u);
  EXPECT_TRUE(m.get_bool("ok"));
  EXPECT_EQ(m.get_f64("llama.eps"), 1e-5);
  EXPECT_THAT(*m.find_array_string("tokens"), ElementsAre("a", ""));
  EXPECT_THAT(*m.find_array_u64("heads"), ElementsAre(4u, 8u));
  ASSERT_EQ(contents.tensors.size(), 2u);
  EXPECT_EQ(contents.tensors[0].name, "second");
  EXPECT_EQ(contents.tensors[0].view.shape, (Shape{3, 32}));
  EXPECT_EQ(contents.tensors[0].view.dtype, DType::kQ8_0);
  std::vector<float> row(5);
  decode_row(contents.tensors[1].view, 0, row.data());
  EXPECT_THAT(row, ElementsAre(1, 2, 3, 4, 5));
}

TEST(GgufReader, VersionTwoIsTheSame) {
  GgufTestBytes file;
  file.header(0, 0, 2);
  EXPECT_EQ(parse_gguf(file.bytes(), "x.gguf").tensors.size(), 0u);
}

TEST(GgufReader, RefusesBadHeaders) {
  EXPECT_THAT(refusal(GgufTestBytes().pad_to(23)), HasSubstr("expected at least 24 bytes of header, found 23"));
  EXPECT_THAT(refusal(GgufTestBytes().number<uint32_t>(0x46474746).zeros(20)), HasSubstr("magic 'GGUF', found 'FGGF'"));
  EXPECT_THAT(refusal(GgufTestBytes().header(0, 0, 1)), HasSubstr("version 2 or 3, found 1"));
  EXPECT_THAT(refusal(GgufTestBytes().header(0, 0, 4)), HasSubstr("version 2 or 3, found 4"));
  EXPECT_THAT(refusal(GgufTestBytes().header(0, 0, 0x03000000)), HasSubstr("other endianness"));
  EXPECT_THAT(refusal(GgufTestBytes().header(3, 0).zeros(74)), HasSubstr("at most 2 tensors"));
  EXPECT_THAT(refusal(GgufTestBytes().header(0, 2).zeros(25)), HasSubstr("at most 1 metadata entries"));
  EXPECT_THAT(refusal(GgufTestBytes().header(~uint64_t{0}, 0)), HasSubstr("18446744073709551615"));
}

TEST(GgufReader, RefusesBadKeys) {
  EXPECT_THAT(refusal(GgufTestBytes().header(0, 1).number(~uint64_t{0}).zeros(16)),
              HasSubstr("key of metadata entry 0"));
  EXPECT_THAT(refusal(GgufTestBytes().header(0, 1).key("", ValueType::kU64).zeros(8)), HasSubstr("found 0 bytes"));
  EXPECT_THAT(refusal(GgufTestBytes().header(0, 1).key(std::string(65536, 'a'), ValueType::kU64).zeros(8)),
              HasSubstr("found 65536 bytes"));
  EXPECT_THAT(
      refusal(GgufTestBytes().header(0, 2).key("a.b", ValueType::kU8).zeros(1).key("a.b", ValueType::kU8).zeros(1)),
      HasSubstr("key 'a.b': expected it once"));
}

TEST(GgufReader, RefusesBadValues) {
  const auto with = [](uint32_t type) { return GgufTestBytes().header(0, 1).string("k").number(type); };
  EXPECT_THAT(refusal(with(13).zeros(16)), HasSubstr("key 'k': expected a value type of 0 to 12, found 13"));
  EXPECT_THAT(refusal(with(7).number<uint8_t>(2)), HasSubstr("key 'k': expected a bool of 0 or 1, found 2"));
  EXPECT_THAT(refusal(with(10).zeros(4)), HasSubstr("key 'k': expected 8 more bytes, found 4"));
  EXPECT_THAT(refusal(with(8).number<uint64_t>(3).zeros(2)),
              HasSubstr("key 'k': expected a string of at most 2 bytes"));
  const auto array = [](ValueType type, uint64_t count) {
    return GgufTestBytes().header(0, 1).array("k", type, count);
  };
  EXPECT_THAT(refusal(array(ValueType::kArray, 1).zeros(20)), HasSubstr("key 'k': expected an array of plain values"));
  EXPECT_THAT(refusal(array(static_cast<ValueType>(99), 1).zeros(20)), HasSubstr("key 'k': expected a value type"));
  EXPECT_THAT(refusal(array(ValueType::kU32, 3).zeros(11)), HasSubstr("at most 2 elements, found a count of 3"));
  EXPECT_THAT(refusal(array(ValueType::kU64, (uint64_t{1} << 61) + 1).zeros(8)), HasSubstr("key 'k'"));
  EXPECT_THAT(refusal(array(ValueType::kU8, (uint64_t{1} << 30) + 1).zeros(8)), HasSubstr("key 'k'"));
  EXPECT_THAT(refusal(array(ValueType::kString, 2).zeros(15)), HasSubstr("at most 1 elements, found a count of 2"));
  EXPECT_THAT(refusal(array(ValueType::kBool, 2).number<uint8_t>(1).number<uint8_t>(255)), HasSubstr("found 255"));
}

TEST(GgufReader, RefusesBadAlignment) {
  const auto aligned = [](uint32_t n) {
    return GgufTestBytes().header(0, 1).key("general.alignment", ValueType::kU32).number(n);
  };
  EXPECT_EQ(refusal(aligned(64)), "no error");
  EXPECT_THAT(refusal(aligned(0)), HasSubstr("'general.alignment'"));
  EXPECT_THAT(refusal(aligned(48)), HasSubstr("found 48"));
  EXPECT_THAT(refusal(aligned(4)), HasSubstr("found 4"));
  EXPECT_THAT(refusal(GgufTestBytes().header(0, 1).key("general.alignment", ValueType::kU64).number<uint64_t>(32)),
              HasSubstr("'general.alignment': expected u32, found u64"));
}

GgufTestBytes with_tensor(const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset, size_t data_bytes,
                          std::string_view name = "w") {
  return GgufTestBytes().header(1, 0).tensor(name, dims, type, offset).align().zeros(data_bytes);
}

TEST(GgufReader, RefusesBadTensors) {
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  EXPECT_EQ(refusal(with_tensor({8}, kF32, 0, 32)), "no error");
  EXPECT_THAT(refusal(with_tensor({8}, kF32, 0, 32, "")), HasSubstr("tensor 0: expected a name of 1 to 63 bytes"));
  EXPECT_THAT(refusal(with_tensor({8}, kF32, 0, 32, std::string(64, 'n'))), HasSubstr("found 64 bytes"));
  EXPECT_THAT(refusal(with_tensor({1, 1, 1, 1, 1}, kF32, 0, 32)),
              HasSubstr("'w': expected at most 4 dimensions, found 5"));
  EXPECT_THAT(refusal(with_tensor({8, 0}, kF32, 0, 32)), HasSubstr("'w': expected dimensions from 1"));
  EXPECT_THAT(refusal(with_tensor({kMax}, kF32, 0, 32)), HasSubstr("'w'"));
  EXPECT_THAT(refusal(with_tensor({uint64_t{1} << 32, uint64_t{1} << 31}, kF32, 0, 32)), HasSubstr("'w'"));
  EXPECT_THAT(refusal(with_tensor({uint64_t{1} << 62}, kF32, 0, 32)), HasSubstr("'w': file truncated"));
  EXPECT_THAT(refusal(with_tensor({8}, 4, 0, 32)), HasSubstr("'w': expected a known tensor type, found type id 4"));
  EXPECT_THAT(refusal(with_tensor({8}, 1000, 0, 32)), HasSubstr("type id 1000"));
  EXPECT_THAT(refusal(with_tensor({33}, kQ8_0, 0, 96)),
              AllOf(HasSubstr("'w': expected rows of a multiple of 32 elements"), HasSubstr("[33]")));
  EXPECT_THAT(refusal(with_tensor({8}, kF32, 8, 64)),
              HasSubstr("'w': expected an offset that is a multiple of 32, found 8"));
  EXPECT_THAT(refusal(with_tensor({8}, kF32, 0, 31)), HasSubstr("'w': file truncated: need 96 bytes, have 95"));
  EXPECT_THAT(refusal(with_tensor({8}, kF32, 32, 32)), HasSubstr("'w': file truncated"));
  EXPECT_THAT(refusal(with_tensor({8}, kF32, kMax - 31, 32)), HasSubstr("'w': file truncated"));
  GgufTestBytes twice;
  twice.header(2, 0).tensor("w", {1}, kF32, 0).tensor("w", {1}, kF32, 32).align().zeros(64);
  EXPECT_THAT(refusal(twice), HasSubstr("tensor 'w': expected it once"));
}

TEST(GgufReader, ScalarsAndMissingPaddingAtTheEnd) {
  const GgufTestBytes file = with_tensor({}, kF32, 0, 4);
  EXPECT_EQ(parse_gguf(file.bytes(), "x.gguf").tensors[0].view.shape, Shape{1});
}

TEST(GgufReader, RefusesOverlap) {
  GgufTestBytes file;
  file.header(3, 0).tensor("a", {9}, kF32, 64).tensor("b", {1}, kF32, 0).tensor("c", {1}, kF32, 96).align().zeros(200);
  EXPECT_THAT(refusal(file), HasSubstr("tensor 'c': expected offset 100 or more, after tensor 'a', found 96"));
}

TEST(GgufReader, NamesWithControlCharactersAreEscapedInMessages) {
  EXPECT_THAT(refusal(with_tensor({8}, 4, 0, 32, "a\nb")), HasSubstr("'a\\x0ab'"));
}

TEST(GgufReader, TruncatedAnywhereIsAnError) {
  const GgufTestBytes file = good_file();
  for (size_t n = 0; n < file.size(); ++n) {
    EXPECT_THROW((void)parse_gguf(file.bytes().first(n), "x.gguf"), Error) << n << " of " << file.size() << " bytes";
  }
}

/// Every 8-byte and 4-byte window of the header region set to the values that break arithmetic: nothing may crash.
/// Windows cover every length, count, dimension and offset field at its own position.
TEST(GgufReader, HostileFieldsNeverCrash) {
  const std::string original = good_file().text();
  size_t refused = 0, accepted = 0;
  for (const uint64_t value : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 31, (uint64_t{1} << 63) - 1, ~uint64_t{0}}) {
    for (size_t width : {size_t{4}, size_t{8}}) {
      for (size_t at = 0; at + width <= original.size(); ++at) {
        std::string changed = original;
        std::memcpy(changed.data() + at, &value, width);
        try {
          const GgufContents contents = parse_gguf(std::as_bytes(std::span(changed.data(), changed.size())), "x.gguf");
          for (const NamedTensor& tensor : contents.tensors) {
            const auto* begin = reinterpret_cast<const std::byte*>(changed.data());
            EXPECT_GE(tensor.view.data, begin);
            EXPECT_LE(tensor.view.data + tensor.view.bytes(), begin + changed.size());
          }
          ++accepted;
        } catch (const Error& e) {
          EXPECT_EQ(std::string_view(e.what()).find('\n'), std::string_view::npos);
          ++refused;
        }
      }
    }
  }
  EXPECT_GT(refused, accepted / 4);
}

GgufTestBytes shard(uint16_t number, uint16_t count, int32_t total, std::string_view tensor, uint16_t named_number) {
  GgufTestBytes file;
  file.header(1, named_number == 0 ? 4 : 3);
  if (named_number == 0) file.key("general.architecture", ValueType::kString).string("llama");
  file.key("split.no", ValueType::kU16).number(number);
  file.key("split.count", ValueType::kU16).number(count);
  file.key("split.tensors.count", ValueType::kI32).number(total);
  file.tensor(tensor, {2}, kF32, 0).align();
  file.number<float>(1.0f + static_cast<float>(number)).number<float>(0);
  return file;
}

TEST(GgufShards, AreOneModel) {
  const TestFolder folder;
  const std::string first = folder.write("m-00001-of-00002.gguf", shard(0, 2, 2, "a", 0).text());
  folder.write("m-00002-of-00002.gguf", shard(1, 2, 2, "b", 1).text());
  const ModelFile model = open_gguf(first);
  ASSERT_EQ(model.tensors().size(), 2u);
  EXPECT_EQ(model.files().size(), 2u);
  EXPECT_EQ(model.metadata().get_string("general.architecture"), "llama");
  EXPECT_FALSE(model.metadata().has("split.count"));
  float row[2];
  decode_row(model.find("b")->view, 0, row);
  EXPECT_EQ(row[0], 2.0f);
  EXPECT_EQ(model.find("c"), nullptr);
  EXPECT_EQ(model.tensor_bytes(), 16u);
}

std::string open_refusal(const std::string& path) {
  try {
    (void)open_gguf(path);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(GgufShards, RefusesWrongSets) {
  const TestFolder folder;
  const std::string first = folder.write("m-00001-of-00002.gguf", shard(0, 2, 2, "a", 0).text());
  EXPECT_THAT(open_refusal(first), HasSubstr("m-00002-of-00002.gguf"));
  const std::string second = folder.write("m-00002-of-00002.gguf", shard(1, 3, 2, "b", 1).text());
  EXPECT_THAT(open_refusal(first), HasSubstr("'split.count': expected 2, found 3"));
  folder.write("m-00002-of-00002.gguf", shard(0, 2, 2, "b", 1).text());
  EXPECT_THAT(open_refusal(first), HasSubstr("'split.no': expected 1, found 0"));
  folder.write("m-00002-of-00002.gguf", shard(1, 2, 2, "a", 1).text());
  EXPECT_THAT(open_refusal(first), HasSubstr("'a': expected it in one shard"));
  folder.write("m-00002-of-00002.gguf", shard(1, 2, 3, "b", 1).text());
  EXPECT_THAT(open_refusal(second), HasSubstr("found shard 2"));
  folder.write("m-00001-of-00002.gguf", shard(0, 2, 3, "a", 0).text());
  EXPECT_THAT(open_refusal(first), HasSubstr("'split.tensors.count': expected 3 tensors, found 2"));
  EXPECT_THAT(open_refusal(folder.write("other.gguf", shard(0, 2, 2, "a", 0).text())),
              HasSubstr("-00001-of-00002.gguf"));
}

TEST(GgufReader, ReadsRealFiles) {
  const auto vocabulary = shared_path("data/tokenizers/ggml-vocab-gpt-2.gguf");
  const auto stories = shared_path("data/stories260K.gguf");
  if (!vocabulary || !stories) GTEST_SKIP() << "shared test data is missing";
  const ModelFile only_text = open_gguf(*vocabulary);
  EXPECT_TRUE(only_text.tensors().empty());
  EXPECT_EQ(only_text.metadata().find_array_string("tokenizer.ggml.tokens")->size(), 50257u);
  const ModelFile model = open_gguf(*stories);
  EXPECT_EQ(model.metadata().get_string("general.architecture"), "llama");
  const NamedTensor* embedding = model.find("token_embd.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_EQ(embedding->view.shape, (Shape{512, 64}));
}

}  // namespace
}  // namespace mneme
