#include "weights/gguf_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <filesystem>

#include "base/error.h"
#include "base/test_data.h"
#include "weights/gguf_reader.h"
#include "weights/gguf_test_bytes.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;

Metadata every_type() {
  Metadata m("test");
  m.set_string("general.architecture", "llama");
  m.set_u32("u32", 1);
  m.set_u64("u64", ~uint64_t{0});
  m.set_i32("i32", -5);
  m.set_f32("f32", 0.1f);
  m.set_bool("bool", true);
  m.set_array_string("strings", std::array<std::string, 3>{"a", "", "long text"});
  m.set_array_i32("ints", std::array{1, -1});
  m.set_array_bool("flags", {true, false, true});
  m.set_array_u8("bytes", std::array{std::byte{1}, std::byte{255}});
  m.set_array_f32("none", std::span<const float>());
  return m;
}

TEST(GgufWriter, WhatIsWrittenIsRead) {
  const TestFolder folder;
  const std::string path = folder.file("m.gguf");
  std::vector<float> a(3 * 5), b(1);
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i);
  b[0] = 42.0f;
  const std::vector<NamedTensor> tensors = {
      {"a", {DType::kF32, Shape{3, 5}, reinterpret_cast<const std::byte*>(a.data())}},
      {"b", {DType::kF32, Shape{1}, reinterpret_cast<const std::byte*>(b.data())}}};
  write_gguf(path, every_type(), tensors);
  EXPECT_EQ(std::filesystem::file_size(path) % 32, 0u);

  const ModelFile model = open_gguf(path);
  EXPECT_EQ(model.metadata().size(), every_type().size());
  EXPECT_EQ(model.metadata().get_u64("u64"), ~uint64_t{0});
  EXPECT_EQ(model.metadata().get_i64("i32"), -5);
  EXPECT_THAT(*model.metadata().find_array_string("strings"), ElementsAre("a", "", "long text"));
  EXPECT_THAT(*model.metadata().find_array_bool("flags"), ElementsAre(true, false, true));
  EXPECT_TRUE(model.metadata().find_array_f32("none")->empty());
  EXPECT_EQ(model.find("a")->view.shape, (Shape{3, 5}));
  float row[5];
  decode_row(model.find("a")->view, 2, row);
  EXPECT_THAT(row, ElementsAre(10, 11, 12, 13, 14));
  decode_row(model.find("b")->view, 0, row);
  EXPECT_EQ(row[0], 42.0f);
}

TEST(GgufWriter, PiecesMakeTheSameFile) {
  const TestFolder folder;
  std::vector<std::byte> data(34 * 7);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i);
  const std::vector<TensorInfo> infos = {{"w", DType::kQ8_0, Shape{7, 32}}};
  for (size_t piece : {size_t{1}, size_t{33}, data.size()}) {
    GgufWriter writer(folder.file("p.gguf"), every_type(), infos);
    for (size_t at = 0; at < data.size(); at += piece) {
      writer.write(std::span(data).subspan(at, std::min(piece, data.size() - at)));
    }
    writer.finish();
    const ModelFile model = open_gguf(folder.file("p.gguf"));
    EXPECT_EQ(std::memcmp(model.tensors()[0].view.data, data.data(), data.size()), 0);
  }
}

TEST(GgufWriter, HonoursAlignment) {
  const TestFolder folder;
  Metadata m("test");
  m.set_u32("general.alignment", 4096);
  const std::vector<float> one = {1.0f};
  const auto* data = reinterpret_cast<const std::byte*>(one.data());
  const std::vector<NamedTensor> tensors = {{"a", {DType::kF32, Shape{1}, data}}, {"b", {DType::kF32, Shape{1}, data}}};
  write_gguf(folder.file("m.gguf"), m, tensors);
  const ModelFile model = open_gguf(folder.file("m.gguf"));
  EXPECT_EQ(model.tensors()[1].view.data - model.tensors()[0].view.data, 4096);
  m.set_u32("general.alignment", 3);
  EXPECT_THROW(write_gguf(folder.file("bad.gguf"), m, tensors), Error);
  EXPECT_FALSE(std::filesystem::exists(folder.file("bad.gguf")));
}

TEST(GgufWriter, RefusesWhatTheFormatCannotHold) {
  const TestFolder folder;
  const auto refused = [&](std::vector<TensorInfo> infos) {
    EXPECT_THROW(GgufWriter(folder.file("m.gguf"), Metadata("test"), std::move(infos)), Error);
  };
  refused({{"", DType::kF32, Shape{1}}});
  refused({{std::string(64, 'x'), DType::kF32, Shape{1}}});
  refused({{"a", DType::kF32, Shape{1}}, {"a", DType::kF32, Shape{1}}});
  refused({{"a", DType::kQ8_0, Shape{33}}});
  refused({{"a", DType::kF32, Shape{0}}});
}

TEST(GgufWriter, UnfinishedFilesVanish) {
  const TestFolder folder;
  { GgufWriter writer(folder.file("m.gguf"), Metadata("test"), {{"a", DType::kF32, Shape{8}}}); }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

/// A real file read and written again holds the same metadata and tensor bytes.
TEST(GgufWriter, CopiesRealFiles) {
  const auto path = shared_path("golden/logits/gemma2.gguf");
  if (!path) GTEST_SKIP() << "shared test data is missing";
  const TestFolder folder;
  const ModelFile original = open_gguf(*path);
  write_gguf(folder.file("copy.gguf"), original.metadata(), original.tensors());
  const ModelFile copy = open_gguf(folder.file("copy.gguf"));
  EXPECT_EQ(copy.file_bytes(), original.file_bytes());
  const auto a = original.files()[0].bytes(), b = copy.files()[0].bytes();
  EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end()));
}

}  // namespace
}  // namespace mneme
