#include "weights/aqlm_quantizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/half.h"
#include "base/parallel.h"
#include "base/philox.h"
#include "base/test_error.h"
#include "tensor/weight_format.h"
#include "weights/codebook_kmeans.h"
#include "weights/gguf_test_bytes.h"
#include "weights/gguf_writer.h"
#include "weights/gptq.h"
#include "weights/quantize.h"

namespace mneme::aqlm {
namespace {

using ::testing::HasSubstr;

constexpr size_t kRows = 96, kColumns = 128;

/// Gram matrix of inputs whose channels are correlated and of unequal size, as those of language models are.
std::vector<float> correlated_gram(size_t n) {
  PhiloxStream random(1);
  std::vector<double> sums(n * n), x(n);
  for (size_t t = 0; t < 3 * n; ++t) {
    double common = 0;
    for (size_t j = 0; j < n; ++j) {
      common = 0.8 * common + static_cast<double>(random.next_normal());
      x[j] = common * (j % 16 == 0 ? 4.0 : 1.0);
    }
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < n; ++j) sums[i * n + j] += x[i] * x[j];
    }
  }
  return {sums.begin(), sums.end()};
}

std::vector<float> normal(size_t n, uint64_t seed) {
  PhiloxStream random(seed);
  std::vector<float> out(n);
  for (float& v : out) v = 0.02f * random.next_normal();
  return out;
}

std::vector<float> decoded(const Quantized& q, const Layout& layout) {
  const TensorView view{DType::kAqlm, Shape{layout.rows, layout.columns}, q.stream.data(), q.stream.size()};
  weight_format(DType::kAqlm).validate(view, "w");
  std::vector<float> out(layout.rows * layout.columns);
  weight_format(DType::kAqlm).decode_tile(view, {0, layout.rows, 0, layout.columns}, out.data(), layout.columns);
  return out;
}

Quantized run(const std::vector<float>& w, const Layout& layout, std::span<const float> gram) {
  Ledger ledger;
  return quantize(w, layout, gram, {}, ledger);
}

TEST(AqlmQuantizer, LossNeverRisesAndIsThatOfTheStream) {
  const std::vector<float> w = normal(kRows * kColumns, 2), gram = correlated_gram(kColumns);
  std::vector<float> diagonal(kColumns);
  for (size_t c = 0; c < kColumns; ++c) diagonal[c] = gram[c * kColumns + c];
  for (const Scheme& scheme : {Scheme{2, 6, 8}, {1, 6, 4}, {3, 4, 4}, {1, 3, 1}, {2, 5, 2}}) {
    const Layout layout = layout_for(kRows, kColumns, scheme);
    for (std::span<const float> inputs : {std::span<const float>(gram), std::span<const float>(diagonal), {}}) {
      SCOPED_TRACE(fmt::format("{}x{}g{}, {}", scheme.codebooks, scheme.bits, scheme.group, inputs.size()));
      const Quantized q = run(w, layout, inputs);
      ASSERT_GE(q.losses.size(), 4u);
      for (size_t i = 1; i < q.losses.size(); ++i) EXPECT_LE(q.losses[i], q.losses[i - 1] * (1 + 1e-5)) << i;
      // The damping of a hundredth of the mean diagonal is part of the loss.
      std::vector<float> full(kColumns * kColumns);
      double mean = 0;
      for (size_t c = 0; c < kColumns; ++c) {
        full[c * kColumns + c] = inputs.empty() ? 1.0f : diagonal[c];
        mean += static_cast<double>(full[c * kColumns + c]) / kColumns;
      }
      if (inputs.size() == full.size()) full.assign(inputs.begin(), inputs.end());
      for (size_t c = 0; c < kColumns; ++c) full[c * kColumns + c] += static_cast<float>(0.01 * mean);
      const std::vector<float> zero(w.size());
      const double loss = output_error(w, decoded(q, layout), full, kColumns) / output_error(w, zero, full, kColumns);
      EXPECT_NEAR(loss / q.losses.back(), 1, 1e-3);
      // Where channels are independent, the start is near the end for one codebook.
      EXPECT_LT(q.losses.back(), (inputs.size() == full.size() ? 0.7 : 1.0) * q.losses.front());
    }
  }
}

/// Integers of `bits` with a minimum, rounded to nearest, a scale and a minimum in half precision for 64 columns.
std::vector<float> rounded_to_nearest(const std::vector<float>& w, int bits) {
  std::vector<float> out = w;
  for (size_t g = 0; g < out.size(); g += 64) {
    const auto [low, high] =
        std::minmax_element(w.begin() + static_cast<long>(g), w.begin() + static_cast<long>(g + 64));
    const float zero = f16_to_f32(f32_to_f16(*low)),
                scale = f16_to_f32(f32_to_f16((*high - *low) / static_cast<float>((1 << bits) - 1)));
    for (size_t i = g; i < g + 64; ++i) {
      out[i] =
          zero + scale * std::clamp(std::nearbyint((w[i] - zero) / scale), 0.0f, static_cast<float>((1 << bits) - 1));
    }
  }
  return out;
}

TEST(AqlmQuantizer, BeatsPlainVectorsAndRoundingAtTheirSize) {
  constexpr size_t kWide = 256;
  const std::vector<float> w = normal(kWide * kWide, 3), gram = correlated_gram(kWide);
  const Layout layout = layout_for(kWide, kWide, {1, 8, 4});
  ASSERT_LT(layout.bits_per_weight(), 2.5);  // those of integers: 2 and 32 / 64
  const double found = output_error(w, decoded(run(w, layout, gram), layout), gram, kWide);
  // Plain k-means on the same groups, without the inputs: of W over the root mean squares of its rows.
  std::vector<float> points = w;
  std::vector<float> scales(kWide);
  for (size_t r = 0; r < kWide; ++r) {
    double sum = 0;
    for (size_t c = 0; c < kWide; ++c)
      sum += static_cast<double>(w[r * kWide + c]) * static_cast<double>(w[r * kWide + c]);
    scales[r] = static_cast<float>(std::sqrt(sum / kWide));
    for (size_t c = 0; c < kWide; ++c) points[r * kWide + c] /= scales[r];
  }
  const std::vector<float> ones(kWide, 1.0f), centres = kmeans_codebook(points, kWide, 4, 8, ones, 100, 0);
  std::vector<uint16_t> codes(kWide * kWide / 4);
  nearest_codes(points, kWide, 4, ones, centres, codes.data(), 1);
  std::vector<float> plain(w.size());
  for (size_t i = 0; i < plain.size(); ++i) plain[i] = scales[i / kWide] * centres[codes[i / 4] * 4 + i % 4];
  EXPECT_LT(found, 0.6 * output_error(w, plain, gram, kWide));
  EXPECT_LT(found, 0.3 * output_error(w, rounded_to_nearest(w, 2), gram, kWide));
}

TEST(AqlmQuantizer, ScalarLevelsAreTheBestOfNormalValues) {
  // Least mean squared errors of 4, 8 and 16 levels (Max 1960).
  const std::vector<float> w = normal(256 * 256, 4);
  for (const auto& [bits, known] : {std::pair{2u, 0.1175}, {3u, 0.03454}, {4u, 0.009497}}) {
    const Quantized q = run(w, layout_for(256, 256, {1, bits, 1}), {});
    EXPECT_NEAR(q.losses.back() / known, 1, 0.04) << bits;
  }
}

TEST(AqlmQuantizer, AnyThreadsGiveTheSameBytes) {
  const std::vector<float> w = normal(kRows * kColumns, 5), gram = correlated_gram(kColumns);
  const Layout layout = layout_for(kRows, kColumns, {2, 6, 8});
  const int before = n_threads();
  set_n_threads(1);
  const Quantized one = run(w, layout, gram);
  set_n_threads(3);
  const Quantized three = run(w, layout, gram);
  set_n_threads(before);
  EXPECT_EQ(one.stream, three.stream);
}

TEST(AqlmQuantizer, OddMatrices) {
  // Columns that do not fill the last group, with the gram matrix of silent inputs.
  const std::vector<float> odd = normal(40 * 61, 6), silent(61 * 61, 0.0f);
  const Layout layout = layout_for(40, 61, capped({2, 8, 8}, 40, 61));
  EXPECT_LT(run(odd, layout, silent).losses.back(), 0.5);
  std::vector<float> w = normal(kRows * kColumns, 7);
  std::fill_n(w.begin(), kColumns, 0.0f);  // a row of zeros stays one
  const Layout whole = layout_for(kRows, kColumns, {1, 6, 8});
  const std::vector<float> back = decoded(run(w, whole, {}), whole);
  for (size_t c = 0; c < kColumns; ++c) EXPECT_EQ(back[c], 0.0f);
  for (float v : decoded(run(std::vector<float>(kRows * kColumns, 0.0f), whole, {}), whole)) EXPECT_EQ(v, 0.0f);
  w[77] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(error_of([&] { run(w, whole, {}); }), HasSubstr("finite"));
  w[77] = 3e30f;
  EXPECT_THAT(error_of([&] { run(w, whole, {}); }), HasSubstr("65504"));
}

/// A model of one layer with a token table, in F32.
std::string write_model(const TestFolder& folder) {
  Metadata metadata("test");
  metadata.set_string("general.architecture", "llama");
  const std::vector<float> table = normal(64 * kColumns, 8), q = normal(kRows * kColumns, 9),
                           v = normal(16 * kColumns, 10);
  const auto view = [](const std::vector<float>& data) {
    return TensorView{DType::kF32, Shape{data.size() / kColumns, kColumns},
                      reinterpret_cast<const std::byte*>(data.data())};
  };
  const std::vector<NamedTensor> tensors = {
      {"token_embd.weight", view(table)}, {"blk.0.attn_q.weight", view(q)}, {"blk.0.attn_v.weight", view(v)}};
  write_gguf(folder.file("source.gguf"), metadata, tensors);
  return folder.file("source.gguf");
}

TEST(AqlmQuantizer, WholeModelsAreWrittenAndReadBack) {
  const TestFolder folder;
  const ModelFile model = open_gguf(write_model(folder));
  ModelFileSource source(model);
  QuantizeOptions how;
  how.recipe = find_quant_recipe("aqlm2x9g8");
  ASSERT_NE(how.recipe, nullptr);
  EXPECT_EQ(how.recipe->name, "AQLM2x9g8");
  Ledger ledger;
  size_t lines = 0;
  const TranscodeReport report = quantize_model(
      source, folder.file("out.gguf"), how, ledger,
      [&](uint64_t, const std::string& line) { lines += line.find("attn_q.weight, round") != std::string::npos; });
  EXPECT_GT(lines, 1u);
  // 96 x 128 has 1536 groups of 8, 16 x 128 only 256: at most 8 and 6 bits.
  ASSERT_EQ(report.notes.size(), 2u);
  EXPECT_THAT(report.notes[0],
              HasSubstr("'blk.0.attn_q.weight' of [96, 128] has groups for codebooks of 8 bits, not 9"));
  const ModelFile written = open_gguf(folder.file("out.gguf"));
  const TensorView& q = written.find("blk.0.attn_q.weight")->view;
  EXPECT_EQ(q.dtype, DType::kAqlm);
  EXPECT_EQ(q.stream_bytes, layout_for(kRows, kColumns, {2, 8, 8}).bytes());
  EXPECT_NE(written.find("token_embd.weight")->view.dtype, DType::kAqlm);
  std::vector<float> before(kColumns), after(kColumns);
  double error = 0, norm = 0;
  for (uint64_t r = 0; r < kRows; ++r) {
    decode_row(model.find("blk.0.attn_q.weight")->view, r, before.data());
    decode_row(q, r, after.data());
    for (size_t c = 0; c < kColumns; ++c) {
      error += std::pow(static_cast<double>(before[c] - after[c]), 2);
      norm += std::pow(static_cast<double>(before[c]), 2);
    }
  }
  EXPECT_NEAR(report.tensors[1].relative_error(), std::sqrt(error / norm), 1e-6);
  EXPECT_LT(error / norm, 0.2);
  // What is quantised is not quantised again without leave, but any type may come back out.
  const ModelFileSource again(written);
  std::vector<DType> types(again.tensors().size(), DType::kQ4_0);
  ModelFileSource from(written);
  EXPECT_THAT(error_of([&] { check_second_loss(from, types); }), HasSubstr("AQLM"));
  types.assign(types.size(), DType::kF32);
  transcode(from, types, written.metadata(), folder.file("back.gguf"), ledger);
  const ModelFile back = open_gguf(folder.file("back.gguf"));
  decode_row(q, 95, after.data());
  decode_row(back.find("blk.0.attn_q.weight")->view, 95, before.data());
  EXPECT_EQ(before, after);
}

TEST(AqlmQuantizer, NamesOfSettings) {
  EXPECT_EQ(find_quant_recipe("AQLM1x15")->scheme, (Scheme{1, 15, 8}));
  EXPECT_EQ(find_quant_recipe("AQLM3x4g2")->scheme, (Scheme{3, 4, 2}));
  EXPECT_EQ(find_quant_recipe("aqlm2x8g8"), find_quant_recipe("AQLM2x8G8"));
  EXPECT_EQ(find_quant_recipe("KMEANS3")->scheme, (Scheme{1, 3, 1}));
  for (const char* name : {"AQLM", "AQLM2", "AQLM2x", "AQLM2x17", "AQLM9x8", "AQLM2x8g3", "AQLM2x8g", "AQLM2x8g8x",
                           "AQLM0x8", "AQLM-1x8", "AQLM99999999999x8"}) {
    EXPECT_EQ(find_quant_recipe(name), nullptr) << name;
  }
}

TEST(AqlmQuantizer, OtherMethodsAreRefused) {
  const TestFolder folder;
  const ModelFile model = open_gguf(write_model(folder));
  ModelFileSource source(model);
  QuantizeOptions how;
  how.recipe = find_quant_recipe("KMEANS3");
  how.clipping = Clipping::kMse;
  Ledger ledger;
  EXPECT_THAT(error_of([&] { quantize_model(source, folder.file("out.gguf"), how, ledger); }), HasSubstr("--clip"));
  how = {};
  how.size = 1 << 20;
  how.candidates = {DType::kAqlm};
  EXPECT_THAT(error_of([&] { quantize_model(source, folder.file("out.gguf"), how, ledger); }),
              HasSubstr("fixed number of bits"));
}

}  // namespace
}  // namespace mneme::aqlm
