#include "weights/calibration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/philox.h"
#include "weights/awq.h"
#include "weights/gguf_test_bytes.h"
#include "weights/gguf_writer.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

std::shared_ptr<InputStatistics> statistics(size_t columns, double square) {
  auto out = std::make_shared<InputStatistics>();
  out->n_rows = 10;
  out->squares.assign(columns, square);
  out->squares[1] = 40 * square;
  out->magnitudes.assign(columns, square);
  out->magnitudes[1] = 20 * square;
  return out;
}

TEST(Calibration, ImportanceIsTheMeanSquareAndNeverZero) {
  const auto s = statistics(4, 5);
  s->squares[2] = 0;
  const std::vector<float> h = s->importance();
  EXPECT_NEAR(h[0], 0.5f, 0.01f);
  EXPECT_NEAR(h[1], 20.0f, 0.01f);
  EXPECT_GT(h[2], 0.0f);
}

TEST(Calibration, FilesGoThereAndBackAndBadOnesAreRefused) {
  const TestFolder folder;
  Calibration calibration;
  calibration.set("blk.0.attn_q.weight", statistics(64, 2));
  calibration.save(folder.file("i.gguf"), "text.txt");
  const Calibration back = Calibration::load(folder.file("i.gguf"));
  ASSERT_NE(back.find("blk.0.attn_q.weight"), nullptr);
  EXPECT_EQ(back.find("blk.0.attn_q.weight")->squares, calibration.find("blk.0.attn_q.weight")->squares);
  EXPECT_EQ(back.find("blk.0.attn_q.weight")->n_rows, 10u);

  // Of another model: no matrix in common, or another width.
  const std::vector<TensorInfo> other = {{"blk.9.attn_q.weight", DType::kF32, Shape{8, 64}}};
  EXPECT_THROW(back.check(other), Error);
  const std::vector<TensorInfo> narrow = {{"blk.0.attn_q.weight", DType::kF32, Shape{8, 32}}};
  try {
    back.check(narrow);
    FAIL() << "expected an error";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("32 columns, found 64"));
  }
  // Not such a file at all; sums that are none.
  std::vector<float> sums(64, -1.0f), count(1, 3.0f);
  const auto view = [](const std::vector<float>& v) {
    return TensorView{DType::kF32, Shape{v.size()}, reinterpret_cast<const std::byte*>(v.data())};
  };
  const std::vector<NamedTensor> plain = {{"a", view(sums)}};
  write_gguf(folder.file("plain.gguf"), Metadata("test"), plain);
  EXPECT_THROW((void)Calibration::load(folder.file("plain.gguf")), Error);
  const std::vector<NamedTensor> negative = {{"a.in_sum2", view(sums)}, {"a.counts", view(count)}};
  write_gguf(folder.file("negative.gguf"), Metadata("test"), negative);
  EXPECT_THROW((void)Calibration::load(folder.file("negative.gguf")), Error);
}

/// Scaled weights on scaled inputs are the function that was there before.
TEST(Awq, ScalesCancel) {
  const TestFolder folder;
  PhiloxStream random(3);
  std::vector<std::pair<std::string, Shape>> shapes = {
      {"blk.0.attn_norm.weight", Shape{128}},   {"blk.0.attn_q.weight", Shape{16, 128}},
      {"blk.0.ffn_norm.weight", Shape{128}},    {"blk.0.ffn_gate.weight", Shape{256, 128}},
      {"blk.0.ffn_up.weight", Shape{256, 128}}, {"blk.0.ffn_down.weight", Shape{128, 256}}};
  std::vector<std::vector<float>> data;
  std::vector<NamedTensor> tensors;
  for (const auto& [name, shape] : shapes) {
    data.emplace_back(shape.elements());
    for (float& v : data.back()) v = random.next_normal();
    tensors.push_back({name, {DType::kF32, shape, reinterpret_cast<const std::byte*>(data.back().data())}});
  }
  write_gguf(folder.file("m.gguf"), Metadata("test"), tensors);
  const ModelFile model = open_gguf(folder.file("m.gguf"));
  ModelFileSource source(model);
  Calibration calibration;
  calibration.set("blk.0.attn_q.weight", statistics(128, 3));
  calibration.set("blk.0.ffn_gate.weight", statistics(128, 3));
  calibration.set("blk.0.ffn_down.weight", statistics(256, 3));
  std::vector<DType> types(shapes.size(), DType::kBitMod3);
  types[0] = types[2] = DType::kF32;
  const ScalesByName scales = awq_scales(source, types, calibration, [](size_t, size_t) {});
  const std::vector<float>& q = scales.at("blk.0.attn_q.weight").columns;
  EXPECT_GT(q[1], 1.1f * q[0]);  // the loud channel is made larger
  ScaledSource scaled_source(source, scales);
  const auto values = [&](size_t i) {
    const auto bytes = scaled_source.load(i);
    const auto* floats = reinterpret_cast<const float*>(bytes.data());
    return std::vector<float>(floats, floats + bytes.size() / sizeof(float));
  };
  const std::vector<float> norm = values(0), weight = values(1), up = values(4), down = values(5);
  for (size_t j = 0; j < 128; ++j) {
    EXPECT_NEAR(norm[j] * weight[5 * 128 + j], data[0][j] * data[1][5 * 128 + j], 1e-5f);
  }
  const std::vector<float>& in = scales.at("blk.0.ffn_up.weight").columns;
  for (size_t j = 0; j < 256; ++j) {
    EXPECT_NEAR(up[j * 128 + 7] / in[7] * down[3 * 256 + j], data[4][j * 128 + 7] * data[5][3 * 256 + j], 1e-5f);
  }
  const Calibration after = scaled(calibration, scales, source.tensors());
  EXPECT_NEAR(after.find("blk.0.attn_q.weight")->squares[1] * static_cast<double>(q[1] * q[1]), 120, 1e-3);
}

}  // namespace
}  // namespace mneme
