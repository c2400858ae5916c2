#include "eval/divergence.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <span>
#include <string>

#include "base/error.h"
#include "base/test_data.h"
#include "engine/calibration.h"
#include "eval/sensitivity.h"
#include "weights/quantize.h"

namespace mneme {
namespace {

const std::string kModel = source_path("models/pocket.gguf");
constexpr const char* kText =
    "Once upon a time there was a little girl who lived in a house by the sea. Every morning she walked along the "
    "shore and "
    "looked for shells. One day she found a bottle with a letter in it. The letter was from an old sailor who had lost "
    "his way "
    "and asked for help. She ran home and told her father, and together they took the boat and sailed out to find him. "
    "The wind "
    "was strong and the waves were high, but they were not afraid. After three days they saw a small island with a "
    "fire on it. "
    "The old man stood on the beach and waved. He was so happy that he gave her a golden compass, and she kept it all "
    "her life. ";

/// A folder that goes with the test.
class TemporaryFolder {
 public:
  TemporaryFolder()
      : path_(std::filesystem::temp_directory_path() / ("mneme-divergence-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(path_);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

std::unique_ptr<Engine> load(const std::string& path, Ledger& ledger) {
  PlanRequest request;
  request.context = 512;
  return Engine::load(path, request, ledger);
}

void write(const std::string& from, const std::string& to, const char* format, QuantizeOptions how = {}) {
  Ledger ledger;
  const auto source = open_source(from, ledger);
  how.recipe = find_quant_recipe(format);
  how.lossy = true;
  quantize_model(*source, to, how, ledger);
}

Divergence compare(const std::string& a, const std::string& b, size_t n_tokens) {
  Ledger first, second;
  const auto reference = load(a, first), model = load(b, second);
  std::string text;
  while (text.size() < 6 * n_tokens) text += kText;
  std::vector<TokenId> tokens = reference->tokenizer().encode(text, {false, false});
  EXPECT_GE(tokens.size(), n_tokens);
  tokens.resize(n_tokens);
  return divergence(*reference, *model, tokens, {256, 0}, [](uint64_t, uint64_t) {});
}

TEST(Divergence, LosslessFormatsGiveTheSameLogitsToTheBit) {
  const TemporaryFolder folder;
  write(kModel, folder.file("bf16.gguf"), "BF16");
  for (const char* format : {"DF11", "DF12"}) {
    write(folder.file("bf16.gguf"), folder.file("df.gguf"), format);
    const Divergence found = compare(folder.file("bf16.gguf"), folder.file("df.gguf"), 1024);
    EXPECT_TRUE(found.identical) << format;
    EXPECT_EQ(found.kl, 0) << format;
    EXPECT_EQ(found.same_top, 1) << format;
    EXPECT_EQ(found.n_scored, 512u);
  }
}

TEST(Divergence, CalibrationBringsThreeBitsNearer) {
  const TemporaryFolder folder;
  Calibration calibration;
  {
    Ledger ledger;
    const auto engine = load(kModel, ledger);
    std::string text = kText;
    const std::vector<TokenId> tokens = engine->tokenizer().encode(text + text, {false, false});
    CalibrationOptions options;
    options.wants_gram = [](const std::string& name) { return name.starts_with("blk."); };
    calibration = calibrate(*engine, tokens, options, [](uint64_t, uint64_t) {});
    EXPECT_THROW((void)calibrate(*engine, {}, options, [](uint64_t, uint64_t) {}), Error);
  }
  EXPECT_NE(calibration.find("blk.0.attn_q.weight"), nullptr);
  EXPECT_EQ(calibration.find("blk.0.attn_q.weight"), calibration.find("blk.0.attn_k.weight"));
  EXPECT_NE(calibration.find("blk.0.ffn_down.weight"), calibration.find("blk.0.ffn_up.weight"));
  std::map<std::string, double> kl;
  const auto measure = [&](const std::string& name, const QuantizeOptions& how) {
    write(kModel, folder.file("q.gguf"), "BITMOD3", how);
    kl[name] = compare(kModel, folder.file("q.gguf"), 512).kl;
    RecordProperty(name, std::to_string(kl[name]));
  };
  measure("rtn", {});
  QuantizeOptions how;
  how.calibration = &calibration;
  measure("importance", how);
  how.gptq = true;
  measure("gptq", how);
  how.gptq = false;
  how.awq = true;
  measure("awq", how);
  EXPECT_LT(kl["importance"], kl["rtn"]);
  EXPECT_LT(kl["gptq"], 0.8 * kl["importance"]);
  EXPECT_LT(kl["awq"], 1.05 * kl["importance"]);
}

TEST(Divergence, StaticActivationsAreThoseOfTheCalibration) {
  const TemporaryFolder folder;
  Calibration calibration;
  {
    Ledger ledger;
    const auto engine = load(kModel, ledger);
    const std::vector<TokenId> tokens = engine->tokenizer().encode(kText, {false, false});
    calibration = calibrate(*engine, tokens, {}, [](uint64_t, uint64_t) {});
  }
  QuantizeOptions how;
  how.static_activations = true;
  const std::string path = folder.file("static.gguf");
  EXPECT_THROW(write(kModel, path, "Q8_0", how), Error);  // nothing says how large inputs are
  how.calibration = &calibration;
  write(kModel, path, "Q8_0", how);
  {
    const ModelFile file = open_gguf(path);
    const std::vector<float>& largest = calibration.find("blk.1.ffn_down.weight")->largest;
    EXPECT_EQ(file.metadata().find_f64("mneme.input_limit.blk.1.ffn_down.weight"),
              static_cast<double>(*std::max_element(largest.begin(), largest.end())));
    EXPECT_FALSE(file.metadata().has("mneme.input_limit.token_embd.weight"));
  }
  const Divergence found = compare(kModel, path, 512);
  EXPECT_GT(found.kl, 0);
  EXPECT_LT(found.kl, 0.2);

  // Limits far too small cut everything off: so they are used.
  Calibration small;
  for (const char* name : {"blk.0.ffn_down.weight", "blk.1.ffn_down.weight"}) {
    auto statistics = std::make_shared<InputStatistics>(*calibration.find(name));
    for (float& x : statistics->largest) x *= 1e-4f;
    small.set(name, statistics);
  }
  how.calibration = &small;
  write(kModel, path, "Q8_0", how);
  EXPECT_GT(compare(kModel, path, 512).kl, 2 * found.kl);

  how.activation_bits = 2;
  EXPECT_THROW(write(kModel, path, "BIPOLAR2", how), Error);
  how.activation_bits = 8;
  EXPECT_THROW(write(kModel, path, "AQLM2x8g8", how), Error);
  EXPECT_THROW(write(kModel, path, "BITSTACK", how), Error);
  Metadata damaged = open_gguf(kModel).metadata();
  damaged.set_f32("mneme.input_limit.blk.0.attn_q.weight", -1.0f);
  {
    Ledger ledger;
    const auto source = open_source(kModel, ledger);
    std::vector<DType> types;
    for (const TensorInfo& tensor : source->tensors()) types.push_back(tensor.dtype);
    transcode(*source, types, damaged, path, ledger);
  }
  Ledger ledger;
  EXPECT_THROW((void)load(path, ledger), Error);
}

TEST(Sensitivity, ASizeLosesLessWithIt) {
  const TemporaryFolder folder;
  Ledger ledger;
  const auto engine = load(kModel, ledger);
  const std::string text = std::string(kText) + kText + kText;
  const std::vector<TokenId> tokens = engine->tokenizer().encode(text, {false, false});
  const std::vector<float> before = window_logits(*engine, std::span(tokens).first(64), 32);
  SensitivityOptions once;
  once.max_windows = 1;
  once.window = 256;
  size_t last = 0;
  const MeasuredLosses measured =
      measure_sensitivity(*engine, tokens, DType::kBitMod3, once, [&](size_t done, size_t all) {
        EXPECT_GE(done, last);
        EXPECT_LE(done, all);
        last = done;
      });
  // Every matrix was tried, matters, and is as before.
  EXPECT_EQ(measured.divergence.size(), engine->model().weights.matrices.size());
  for (const auto& [name, loss] : measured.divergence) EXPECT_GT(loss, 0) << name;
  EXPECT_EQ(last, measured.divergence.size());
  EXPECT_EQ(window_logits(*engine, std::span(tokens).first(64), 32), before);
  EXPECT_THROW(
      (void)measure_sensitivity(*engine, std::span(tokens).first(15), DType::kBitMod3, once, [](size_t, size_t) {}),
      Error);

  QuantizeOptions how;
  how.size = 5 << 19;  // 2.5 MiB
  write(kModel, folder.file("alike.gguf"), "Q4_K", how);
  how.measured = &measured;
  write(kModel, folder.file("measured.gguf"), "Q4_K", how);
  EXPECT_LE(std::filesystem::file_size(folder.file("measured.gguf")), how.size);
  EXPECT_LT(compare(kModel, folder.file("measured.gguf"), 512).kl,
            0.7 * compare(kModel, folder.file("alike.gguf"), 512).kl);

  // A matrix that is said to be all that matters gets the largest type.
  MeasuredLosses invented{DType::kBitMod3, {}};
  for (const auto& [name, loss] : measured.divergence) invented.divergence[name] = 0;
  invented.divergence["blk.2.ffn_up.weight"] = 1;
  how.measured = &invented;
  write(kModel, folder.file("invented.gguf"), "Q4_K", how);
  const ModelFile file = open_gguf(folder.file("invented.gguf"));
  for (const NamedTensor& tensor : file.tensors()) {
    if (tensor.name == "blk.2.ffn_up.weight") {
      EXPECT_EQ(tensor.view.dtype, DType::kQ8_0);
    }
  }
}

TEST(Divergence, ASizeIsKept) {
  const TemporaryFolder folder;
  QuantizeOptions how;
  how.size = 3 << 20;
  write(kModel, folder.file("q.gguf"), "Q4_K", how);
  const auto bytes = std::filesystem::file_size(folder.file("q.gguf"));
  EXPECT_LE(bytes, how.size);
  EXPECT_GE(static_cast<double>(bytes), 0.97 * static_cast<double>(how.size));
  EXPECT_LT(compare(kModel, folder.file("q.gguf"), 512).kl, 0.5);
  how.size = 100000;
  EXPECT_THROW(write(kModel, folder.file("q.gguf"), "Q4_K", how), Error);
}

}  // namespace
}  // namespace mneme
