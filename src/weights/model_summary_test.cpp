#include "weights/model_summary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <vector>

#include "base/error.h"
#include "weights/gguf_test_bytes.h"
#include "weights/gguf_writer.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

TEST(ModelSummary, CountsByType) {
  const TestFolder folder;
  Metadata m("test");
  m.set_string("general.architecture", "qwen3");
  m.set_array_u32("qwen3.attention.head_count_kv", std::array<uint32_t, 2>{4, 2});
  m.set_u32("qwen3.block_count", 2);
  m.set_array_string("tokenizer.ggml.tokens", std::array<std::string, 3>{"a", "b", "c"});
  m.set_string("tokenizer.ggml.model", "gpt2");
  m.set_string("tokenizer.ggml.pre", "qwen2");
  const std::vector<std::byte> zeros(4096);
  const std::vector<NamedTensor> tensors = {{"a", {DType::kF32, Shape{3}, zeros.data()}},
                                            {"b", {DType::kQ8_0, Shape{4, 32}, zeros.data()}},
                                            {"c", {DType::kQ8_0, Shape{2, 32}, zeros.data()}}};
  write_gguf(folder.file("m.gguf"), m, tensors);
  const ModelSummary s = summarize(open_gguf(folder.file("m.gguf")));
  EXPECT_EQ(s.architecture, "qwen3");
  EXPECT_EQ(s.parameters, 3u + 6 * 32);
  EXPECT_EQ(s.tensor_bytes, 12u + 6 * 34);
  ASSERT_EQ(s.types.size(), 2u);
  EXPECT_EQ(s.types[0].dtype, DType::kQ8_0);
  EXPECT_EQ(s.types[0].n_tensors, 2u);
  EXPECT_EQ(s.n_layers, 2u);
  EXPECT_EQ(s.n_kv_heads, 4u);
  EXPECT_EQ(s.n_heads, std::nullopt);
  EXPECT_EQ(s.n_vocab, 3u);
  EXPECT_EQ(s.tokenizer, "gpt2 (qwen2)");
}

TEST(CheckTensorValues, NamesTensorAndRow) {
  const TestFolder folder;
  std::vector<float> data(3 * 5000, 1.0f);
  const auto open = [&] {
    const std::vector<NamedTensor> tensors = {
        {"w", {DType::kF32, Shape{3, 5000}, reinterpret_cast<const std::byte*>(data.data())}}};
    write_gguf(folder.file("m.gguf"), Metadata("test"), tensors);
    return open_gguf(folder.file("m.gguf"));
  };
  EXPECT_NO_THROW(check_tensor_values(open()));
  data[14999] = std::numeric_limits<float>::infinity();
  data[7000] = std::numeric_limits<float>::quiet_NaN();
  try {
    check_tensor_values(open());
    FAIL() << "expected an error";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("'w': expected finite values, found another in row 1 of 3"));
  }
}

}  // namespace
}  // namespace mneme
