#include "eval/divergence.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <string>

#include "base/error.h"
#include "base/test_data.h"
#include "engine/calibration.h"
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
