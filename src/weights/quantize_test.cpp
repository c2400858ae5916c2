#include "weights/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>

#include "base/error.h"
#include "base/philox.h"
#include "base/test_data.h"
#include "tensor/weight_format.h"
#include "weights/gguf_test_bytes.h"
#include "weights/gguf_writer.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

/// A model of F32 tensors with normal values, made from names and shapes.
class TestModel {
 public:
  TestModel(const TestFolder& folder, const std::vector<std::pair<std::string, Shape>>& tensors,
            uint32_t kv_heads = 2) {
    Metadata metadata("test");
    metadata.set_string("general.architecture", "llama");
    metadata.set_u32("llama.attention.head_count", 8);
    metadata.set_u32("llama.attention.head_count_kv", kv_heads);
    PhiloxStream random(1);
    std::vector<std::vector<float>> data;
    std::vector<NamedTensor> views;
    for (const auto& [name, shape] : tensors) {
      data.emplace_back(shape.elements());
      for (float& v : data.back()) v = random.next_normal();
      views.push_back({name, {DType::kF32, shape, reinterpret_cast<const std::byte*>(data.back().data())}});
    }
    path_ = folder.file("source.gguf");
    write_gguf(path_, metadata, views);
  }
  ModelFile open() const { return open_gguf(path_); }

 private:
  std::string path_;
};

std::vector<std::pair<std::string, Shape>> layers(size_t n, bool output) {
  std::vector<std::pair<std::string, Shape>> tensors = {{"token_embd.weight", Shape{16, 256}},
                                                        {"output_norm.weight", Shape{256}}};
  if (output) tensors.push_back({"output.weight", Shape{16, 256}});
  for (size_t i = 0; i < n; ++i) {
    const std::string p = "blk." + std::to_string(i) + ".";
    tensors.push_back({p + "attn_norm.weight", Shape{256}});
    tensors.push_back({p + "attn_q.weight", Shape{8, 256}});
    tensors.push_back({p + "attn_v.weight", Shape{4, 256}});
    tensors.push_back({p + "attn_output.weight", Shape{4, 256}});
    tensors.push_back({p + "ffn_down.weight", Shape{4, 256}});
    tensors.push_back({p + "ffn_gate_inp.weight", Shape{4, 256}});
  }
  return tensors;
}

std::map<std::string, DType> types_of(const QuantRecipe& recipe, const ModelFile& model, bool pure = false) {
  const ModelFileSource source(model);
  const std::vector<DType> types = choose_types(recipe, model.metadata(), source.tensors(), pure);
  std::map<std::string, DType> by_name;
  for (size_t i = 0; i < types.size(); ++i) by_name[source.tensors()[i].name] = types[i];
  return by_name;
}

TranscodeReport quantize(const ModelFile& model, const std::string& path, const QuantizeOptions& options,
                         Ledger& ledger) {
  ModelFileSource source(model);
  return quantize_model(source, path, options, ledger);
}

TEST(QuantRecipes, NamesAreFoundInAnyCase) {
  EXPECT_EQ(find_quant_recipe("q4_k_m")->name, "Q4_K_M");
  EXPECT_EQ(find_quant_recipe("Q4_K_X"), nullptr);
  for (const QuantRecipe& recipe : quant_recipes()) EXPECT_TRUE(can_decode(recipe.base)) << recipe.name;
}

TEST(QuantRecipes, SensitiveTensorsStayFloat) {
  const TestFolder folder;
  const ModelFile model = TestModel(folder, layers(1, true)).open();
  for (const QuantRecipe& recipe : quant_recipes()) {
    for (bool pure : {false, true}) {
      const auto types = types_of(recipe, model, pure);
      EXPECT_EQ(types.at("output_norm.weight"), DType::kF32) << recipe.name;
      EXPECT_EQ(types.at("blk.0.attn_norm.weight"), DType::kF32) << recipe.name;
      EXPECT_EQ(types.at("blk.0.ffn_gate_inp.weight"), DType::kF32) << recipe.name;
      EXPECT_EQ(types.at("blk.0.attn_q.weight"), recipe.base) << recipe.name;
    }
  }
}

TEST(QuantRecipes, OutputMatrixIsStoredBetter) {
  const TestFolder folder;
  const QuantRecipe& q4 = *find_quant_recipe("Q4_K");
  const ModelFile separate = TestModel(folder, layers(1, true)).open();
  EXPECT_EQ(types_of(q4, separate).at("output.weight"), DType::kQ6_K);
  EXPECT_EQ(types_of(q4, separate).at("token_embd.weight"), DType::kQ4_K);
  EXPECT_EQ(types_of(q4, separate, true).at("output.weight"), DType::kQ4_K);
  EXPECT_EQ(types_of(*find_quant_recipe("Q8_0"), separate).at("output.weight"), DType::kQ8_0);
  EXPECT_EQ(types_of(*find_quant_recipe("F16"), separate).at("output.weight"), DType::kF16);
  const ModelFile tied = TestModel(folder, layers(1, false)).open();
  EXPECT_EQ(types_of(q4, tied).at("token_embd.weight"), DType::kQ6_K);
}

TEST(QuantRecipes, OddColumnsFallBack) {
  const TestFolder folder;
  const ModelFile model = TestModel(folder, {{"blk.0.attn_q.weight", Shape{2, 64}},
                                             {"blk.0.attn_k.weight", Shape{2, 40}},
                                             {"output.weight", Shape{2, 96}}})
                              .open();
  const auto type = [&](const char* recipe, const char* tensor) {
    return types_of(*find_quant_recipe(recipe), model).at(tensor);
  };
  EXPECT_EQ(type("Q4_K", "blk.0.attn_q.weight"), DType::kQ5_0);
  EXPECT_EQ(type("Q5_K", "blk.0.attn_q.weight"), DType::kQ5_1);
  EXPECT_EQ(type("Q6_K", "blk.0.attn_q.weight"), DType::kQ8_0);
  EXPECT_EQ(type("Q3_K", "blk.0.attn_q.weight"), DType::kIQ4_NL);
  EXPECT_EQ(type("Q1_0", "blk.0.attn_q.weight"), DType::kQ4_0);
  EXPECT_EQ(type("NVFP4", "blk.0.attn_q.weight"), DType::kNVFP4);
  EXPECT_EQ(type("Q4_0", "blk.0.attn_k.weight"), DType::kF16);
  EXPECT_EQ(type("Q4_K", "output.weight"), DType::kQ8_0);
}

/// The reference tool made these files from the same model; its plain names are the medium mixes here.
TEST(QuantRecipes, MixesChooseAsTheReference) {
  const auto source = shared_path("golden/logits/llama256-F16.gguf");
  if (!source) GTEST_SKIP() << "shared test data is missing";
  const ModelFile original = open_gguf(*source);
  const std::vector<std::pair<const char*, const char*>> names = {
      {"Q2_K", "Q2_K_M"},   {"Q3_K_M", "Q3_K_M"}, {"Q4_K_M", "Q4_K_M"}, {"Q5_K_M", "Q5_K_M"}, {"Q6_K", "Q6_K"},
      {"Q8_0", "Q8_0"},     {"Q4_0", "Q4_0"},     {"Q4_1", "Q4_1"},     {"Q5_0", "Q5_0"},     {"Q5_1", "Q5_1"},
      {"IQ4_XS", "IQ4_XS"}, {"IQ4_NL", "IQ4_NL"}, {"TQ1_0", "TQ1_0"},   {"TQ2_0", "TQ2_0"}};
  for (const auto& [file, recipe] : names) {
    const ModelFile reference = open_gguf(*shared_path(std::string("golden/logits/llama256-") + file + ".gguf"));
    const auto types = types_of(*find_quant_recipe(recipe), original);
    for (const NamedTensor& tensor : reference.tensors()) {
      EXPECT_EQ(dtype_info(types.at(tensor.name)).name, dtype_info(tensor.view.dtype).name)
          << file << " " << tensor.name;
    }
  }
}

TEST(Quantize, WritesReadableFilesOfTheExpectedError) {
  const TestFolder folder;
  // Relative error of normal values in each format, as the codecs reach it, plus 10 %.
  const std::vector<std::pair<const char*, double>> limits = {
      {"F32", 0.0},    {"F16", 0.0003}, {"BF16", 0.0019}, {"Q8_0", 0.0060}, {"Q6_K", 0.019},
      {"Q5_K", 0.039}, {"Q4_K", 0.078}, {"Q4_0", 0.095},  {"Q3_K", 0.16},   {"Q2_K", 0.30}};
  const TestModel source(folder, layers(3, true));
  const ModelFile model = source.open();
  double last = 1e9;
  for (const auto& [name, limit] : limits) {
    Ledger ledger;
    const std::string path = folder.file(std::string(name) + ".gguf");
    const TranscodeReport report = quantize(model, path, {.recipe = find_quant_recipe(name), .pure = true}, ledger);
    const ModelFile stored = open_gguf(path);
    EXPECT_LE(report.relative_error(), limit) << name;
    EXPECT_EQ(report.file_bytes, stored.file_bytes());
    EXPECT_EQ(report.bytes_after(), stored.tensor_bytes());
    EXPECT_EQ(report.bytes_before(), model.tensor_bytes());
    EXPECT_EQ(stored.metadata().get_u64("general.file_type"), find_quant_recipe(name)->file_type);
    EXPECT_EQ(ledger.used(Tier::kRam), 0u);
    if (std::string_view(name) != "BF16" && std::string_view(name) != "Q4_0") {
      EXPECT_LT(report.bits_per_weight(), last) << name;
      last = report.bits_per_weight();
    }
    // The report's error is what a reader of the file sees.
    double error = 0.0;
    for (const TensorReport& tensor : report.tensors) {
      const TensorView& before = model.find(tensor.name)->view;
      const TensorView& after = stored.find(tensor.name)->view;
      std::vector<float> a(before.columns()), b(before.columns());
      double sum = 0.0;
      for (uint64_t row = 0; row < before.rows(); ++row) {
        decode_row(before, row, a.data());
        decode_row(after, row, b.data());
        for (size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
      }
      EXPECT_NEAR(sum, tensor.squared_error, 1e-9 * (1 + sum)) << tensor.name;
      error += sum;
    }
    EXPECT_EQ(error == 0.0, std::string_view(name) == "F32");
  }
}

/// Tensors larger than one part of the work come out as if they were encoded whole.
TEST(Quantize, StochasticRoundingSaysWhatItDoesNotDo) {
  const TestFolder folder;
  const ModelFile model = TestModel(folder, layers(1, true)).open();
  Ledger ledger;
  QuantizeOptions how;
  how.recipe = find_quant_recipe("BIPOLAR4");
  how.stochastic = true;
  const TranscodeReport report = quantize(model, folder.file("a.gguf"), how, ledger);
  ASSERT_EQ(report.notes.size(), 1u);  // the output matrix is Q6_K
  EXPECT_THAT(report.notes.front(), HasSubstr("1 of 6 matrices"));
  how.stochastic = false;
  const TranscodeReport nearest = quantize(model, folder.file("b.gguf"), how, ledger);
  EXPECT_TRUE(nearest.notes.empty());
  // Twice the mean squared error, over all matrices but one.
  EXPECT_NEAR(report.relative_error() / nearest.relative_error(), std::sqrt(2.0), 0.1);
  how.stochastic = true;
  Calibration calibration;
  auto statistics = std::make_shared<InputStatistics>();
  statistics->n_rows = 1;
  statistics->squares.assign(256, 1.0);
  calibration.set("blk.0.attn_q.weight", statistics);
  how.calibration = &calibration;
  EXPECT_THROW((void)quantize(model, folder.file("c.gguf"), how, ledger), Error);
  how.calibration = nullptr;
  for (const char* recipe : {"Q4_K", "BITSTACK", "F16", "AQLM2x8g8"}) {
    how.recipe = find_quant_recipe(recipe);
    EXPECT_THROW((void)quantize(model, folder.file("c.gguf"), how, ledger), Error) << recipe;
  }
}

TEST(Quantize, PartsAndThreadsDoNotShow) {
  const TestFolder folder;
  const TestModel source(folder, {{"blk.0.ffn_up.weight", Shape{(1024 * 4096 + 5 * 4096) / 256 + 3, 256}}});
  const ModelFile model = source.open();
  Ledger ledger;
  quantize(model, folder.file("q.gguf"), {find_quant_recipe("Q8_0")}, ledger);
  const ModelFile stored = open_gguf(folder.file("q.gguf"));
  const TensorView& view = model.tensors()[0].view;
  std::vector<std::byte> whole(row_bytes(DType::kQ8_0, view.shape.elements()));
  dtype_info(DType::kQ8_0)
      .encode(reinterpret_cast<const float*>(view.data), nullptr, whole.data(), view.shape.elements());
  EXPECT_EQ(std::memcmp(whole.data(), stored.tensors()[0].view.data, whole.size()), 0);
}

TEST(Quantize, SecondLossNeedsLeave) {
  const TestFolder folder;
  const ModelFile model = TestModel(folder, layers(1, true)).open();
  Ledger ledger;
  quantize(model, folder.file("q5.gguf"), {find_quant_recipe("Q5_0")}, ledger);
  const ModelFile q5 = open_gguf(folder.file("q5.gguf"));
  for (const char* other : {"Q4_0", "BF16", "DF11"}) {
    try {
      quantize(q5, folder.file("again.gguf"), {find_quant_recipe(other)}, ledger);
      FAIL() << "expected an error";
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), HasSubstr("token_embd.weight"));
      EXPECT_THAT(e.hint(), HasSubstr("--lossy"));
    }
    EXPECT_FALSE(std::filesystem::exists(folder.file("again.gguf")));
  }
  const TranscodeReport report =
      quantize(q5, folder.file("q4.gguf"), {.recipe = find_quant_recipe("Q4_0"), .lossy = true}, ledger);
  EXPECT_LT(report.relative_error(), 0.12);
  // The same type again is a copy, F32 holds everything, and Q8_0 is as good as an original.
  EXPECT_EQ(quantize(q5, folder.file("same.gguf"), {find_quant_recipe("Q5_0")}, ledger).relative_error(), 0.0);
  EXPECT_EQ(quantize(q5, folder.file("f32.gguf"), {find_quant_recipe("F32")}, ledger).relative_error(), 0.0);
  quantize(model, folder.file("q8.gguf"), {find_quant_recipe("Q8_0")}, ledger);
  EXPECT_GT(quantize(open_gguf(folder.file("q8.gguf")), folder.file("b4.gguf"), {find_quant_recipe("BITMOD4")}, ledger)
                .relative_error(),
            0.05);
}

TEST(Quantize, ExactConversionsNeedNoLeave) {
  const TestFolder folder;
  const ModelFile model = TestModel(folder, layers(1, true)).open();
  Ledger ledger;
  quantize(model, folder.file("b3.gguf"), {.recipe = find_quant_recipe("BITMOD3"), .pure = true}, ledger);
  const ModelFile b3 = open_gguf(folder.file("b3.gguf"));
  quantize(b3, folder.file("q8.gguf"), {.recipe = find_quant_recipe("Q8_0"), .pure = true}, ledger);
  const ModelFile q8 = open_gguf(folder.file("q8.gguf"));
  for (size_t i = 0; i < b3.tensors().size(); ++i) {
    const TensorView &a = b3.tensors()[i].view, &b = q8.tensors()[i].view;
    std::vector<float> before(a.columns()), after(b.columns());
    for (uint64_t r = 0; r < a.rows(); ++r) {
      decode_row(a, r, before.data());
      decode_row(b, r, after.data());
      ASSERT_EQ(before, after) << b3.tensors()[i].name;
    }
  }
}

/// BF16 to DF11 to DF12 and back gives the file that went in; odd rows and stacks of experts stay BF16.
TEST(Quantize, LosslessFormatsGiveTheFileBack) {
  const TestFolder folder;
  auto tensors = layers(1, true);
  tensors.push_back({"blk.0.attn_k.weight", Shape{5, 70}});
  tensors.push_back({"blk.0.ffn_down_exps.weight", Shape{3, 8, 256}});
  const ModelFile model = TestModel(folder, tensors).open();
  Ledger ledger;
  quantize(model, folder.file("a.gguf"), {find_quant_recipe("BF16")}, ledger);
  std::string last = "a.gguf";
  for (const char* format : {"DF11", "DF12", "DF11", "BF16"}) {
    const std::string next = std::string(format) + "-" + last;
    quantize(open_gguf(folder.file(last)), folder.file(next), {find_quant_recipe(format)}, ledger);
    const auto types = types_of(*find_quant_recipe(format), open_gguf(folder.file(next)));
    EXPECT_EQ(types.at("blk.0.attn_q.weight"), find_quant_recipe(format)->base);
    EXPECT_EQ(types.at("blk.0.attn_k.weight"), DType::kBF16);
    EXPECT_EQ(types.at("blk.0.ffn_down_exps.weight"), DType::kBF16);
    last = next;
  }
  const ModelFile before = open_gguf(folder.file("a.gguf")), after = open_gguf(folder.file(last));
  ASSERT_EQ(before.tensors().size(), after.tensors().size());
  for (size_t i = 0; i < before.tensors().size(); ++i) {
    const TensorView &a = before.tensors()[i].view, &b = after.tensors()[i].view;
    ASSERT_EQ(a.dtype, b.dtype) << before.tensors()[i].name;
    EXPECT_EQ(std::memcmp(a.data, b.data, a.bytes()), 0) << before.tensors()[i].name;
  }
  // F32 values that are no bfloat16 are refused by name.
  try {
    quantize(model, folder.file("x.gguf"), {find_quant_recipe("DF11")}, ledger);
    FAIL() << "expected an error";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("token_embd.weight"));
  }
  EXPECT_FALSE(std::filesystem::exists(folder.file("x.gguf")));
}

TEST(Quantize, ValuesThatDoNotFitAreRefused) {
  const TestFolder folder;
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 3e38f}) {
    std::vector<float> data(512, 0.5f);
    data[300] = bad;
    const std::vector<NamedTensor> tensors = {
        {"blk.0.attn_q.weight", {DType::kF32, Shape{2, 256}, reinterpret_cast<const std::byte*>(data.data())}}};
    write_gguf(folder.file("bad.gguf"), Metadata("test"), tensors);
    const ModelFile model = open_gguf(folder.file("bad.gguf"));
    Ledger ledger;
    try {
      quantize(model, folder.file("q.gguf"), {find_quant_recipe("Q4_0")}, ledger);
      FAIL() << "expected an error";
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), HasSubstr("'blk.0.attn_q.weight': expected finite values"));
    }
    EXPECT_FALSE(std::filesystem::exists(folder.file("q.gguf")));
  }
}

/// With traces of the Hessian the types are those of least sum of trace x squared error among all that take no more
/// bytes.
TEST(Quantize, TypesForASizeFollowTheTraces) {
  const TestFolder folder;
  const std::vector<std::pair<std::string, Shape>> shapes = {{"blk.0.attn_q.weight", Shape{64, 256}},
                                                             {"blk.0.attn_v.weight", Shape{64, 256}},
                                                             {"blk.0.attn_output.weight", Shape{128, 256}},
                                                             {"blk.0.ffn_down.weight", Shape{600, 256}}};
  const ModelFile model = TestModel(folder, shapes).open();
  ModelFileSource source(model);
  const std::vector<DType> candidates = {DType::kBipolar2, DType::kBitMod4, DType::kQ8_0};
  // Squared errors of all rows.
  std::vector<std::vector<double>> errors(4, std::vector<double>(3));
  for (size_t t = 0; t < 4; ++t) {
    const TensorView& view = model.tensors()[t].view;
    std::vector<float> row(256), back(256);
    for (size_t c = 0; c < 3; ++c) {
      std::vector<std::byte> blocks(row_bytes(candidates[c], 256));
      for (uint64_t r = 0; r < view.rows(); ++r) {
        decode_row(view, r, row.data());
        dtype_info(candidates[c]).encode(row.data(), nullptr, blocks.data(), 256);
        dtype_info(candidates[c]).decode(blocks.data(), back.data(), 256);
        for (size_t j = 0; j < 256; ++j) errors[t][c] += std::pow(static_cast<double>(row[j] - back[j]), 2);
      }
    }
  }
  QuantizeOptions options;
  options.candidates = candidates;
  std::vector<std::vector<DType>> found;
  struct Case {
    std::vector<double> traces;
    uint64_t size;
  };
  // In the third a larger matrix of a smaller trace loses more, in the fourth one whose errors are estimated.
  const Case cases[] = {{{1, 0.01, 0.3, 0.0002}, 85'000},
                        {{0.01, 1, 0.0002, 0.3}, 85'000},
                        {{1, 0.001, 0.7, 0.0001}, 68'000},
                        {{1, 1, 1, 0.6}, 98'200}};
  for (const auto& [traces, size] : cases) {
    options.size = size;
    HessianTraces given;
    for (size_t t = 0; t < 4; ++t) given.mean_trace[shapes[t].first] = traces[t];
    options.traces = &given;
    const std::vector<DType> types = types_for_size(source, folder.file("out.gguf"), options, [](size_t, size_t) {});
    const auto cost = [&, &given_traces = traces](const std::vector<size_t>& choice) {
      std::pair<uint64_t, double> out{0, 0};
      for (size_t t = 0; t < 4; ++t) {
        out.first += row_bytes(candidates[choice[t]], 256) * shapes[t].second[0];
        out.second += given_traces[t] * errors[t][choice[t]];
      }
      return out;
    };
    std::vector<size_t> taken;
    for (const DType type : types) {
      taken.push_back(static_cast<size_t>(std::find(candidates.begin(), candidates.end(), type) - candidates.begin()));
    }
    const auto [bytes, loss] = cost(taken);
    EXPECT_LE(bytes, options.size);
    EXPECT_GT(bytes, options.size * 4 / 5);
    for (size_t i = 0; i < 81; ++i) {
      const auto [other_bytes, other] = cost({i % 3, i / 3 % 3, i / 9 % 3, i / 27});
      // Errors of more than 256 rows are estimated on some of them.
      const bool fits = other_bytes <= bytes || other_bytes + 1500 <= size;  // a header and padding come on top
      EXPECT_TRUE(!fits || loss <= other * 1.05) << i;
    }
    found.push_back(types);
    given.mean_trace.erase("blk.0.attn_v.weight");
    EXPECT_THROW(types_for_size(source, folder.file("out.gguf"), options, [](size_t, size_t) {}), Error);
  }
  EXPECT_NE(found[0], found[1]);
}

}  // namespace
}  // namespace mneme
