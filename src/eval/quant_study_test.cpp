#include "eval/quant_study.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/test_data.h"
#include "train/data/program_text.h"
#include "train/export_gguf.h"
#include "weights/gguf_test_bytes.h"
#include "weights/model_file.h"

namespace mneme {
namespace {

using testing::HasSubstr;

/// An untrained model over a vocabulary of programs.
void write_model(const std::string& path, size_t width) {
  std::vector<std::string> sample;
  PhiloxStream random(1);
  for (int i = 0; i < 300; ++i) sample.push_back(train::program_file(random, train::Split::kTrain));
  const train::TrainTokenizer tokenizer = train::TrainTokenizer::train(sample, 400);
  train::LlamaSizes sizes;
  sizes.vocabulary = tokenizer.size();
  sizes.width = width;
  sizes.n_layers = 1;
  sizes.n_heads = sizes.n_kv_heads = 2;
  sizes.ffn_width = width;
  sizes.context = 256;
  Ledger ledger;
  train::LlamaModel<float> model(ledger, sizes, train::GemmFormat::kFull);
  model.initialise(3);
  train::export_gguf(path, "untrained", model, tokenizer, DType::kBF16);
}

std::string prose_file(const TestFolder& folder) {
  const std::string path = folder.file("prose.txt");
  std::ofstream out(path);
  for (int i = 0; i < 4000; ++i) out << "The miller of village " << i << " had a cat that drank from the well.\n";
  return path;
}

std::vector<TensorInfo> matrices(uint64_t side) {
  return {{"blk.0.attn_q.weight", DType::kBF16, Shape{side, side}, 0, nullptr},
          {"output.weight", DType::kBF16, Shape{1000, side}, 0, nullptr}};
}

TEST(StudyFormat, TakesTheSettingThatCostsWhatItSays) {
  Metadata metadata;
  metadata.set_string("general.architecture", "llama");
  metadata.set_u32("llama.block_count", 1);
  const auto name = [&](std::string_view width, uint64_t side) {
    return std::string(study_format(width, metadata, matrices(side)).recipe->name);
  };
  EXPECT_EQ(name("2", 4096), "AQLM1x15g8");
  EXPECT_EQ(name("4", 4096), "AQLM2x15g8");
  EXPECT_EQ(name("2", 512), "AQLM2x8g8");
  EXPECT_EQ(name("3", 512), "AQLM3x8g8");
  EXPECT_EQ(name("2", 256), "AQLM1x8g4");
  EXPECT_EQ(name("4", 128), "AQLM1x8g2");
  EXPECT_EQ(name("8", 128), "AQLM2x8g2");
  EXPECT_EQ(name("Q4_0", 128), "Q4_0");
  EXPECT_THROW(name("5", 128), Error);
  // 256 x 256 codes of two bits, 256 x 4 bytes of codebook, a factor and 256 halves of scales, in 64s.
  EXPECT_NEAR(aqlm_bits(*find_quant_recipe("AQLM1x8g4"), metadata, matrices(256)),
              8.0 * (64 + 1024 + 512 + 16384) / 65536, 0.01);
}

TEST(CalibrationSet, SharesNothingLongWithTasks) {
  const TestFolder folder;
  write_model(folder.file("m.gguf"), 32);
  const ModelFile file = open_gguf(folder.file("m.gguf"));
  const auto tokenizer = Tokenizer::load(file.metadata());
  const std::vector<train::abacus::Task> tasks = train::abacus::make_tasks(150, 3);
  const TaskOverlap overlap(tasks, *tokenizer);
  const std::vector<std::string> paths = {prose_file(folder)};
  const train::TextSource texts({}, "", paths);
  for (const CalibrationKind kind : {CalibrationKind::kGeneral, CalibrationKind::kCode, CalibrationKind::kMixed}) {
    const CalibrationSet set = make_calibration_set(kind, 5, 6000, *tokenizer, &texts, overlap);
    EXPECT_EQ(set.tokens.size(), 6000u);
    EXPECT_FALSE(overlap.touches(set.tokens)) << calibration_name(kind);
    EXPECT_EQ(make_calibration_set(kind, 5, 6000, *tokenizer, &texts, overlap).tokens, set.tokens);
    const std::string text = tokenizer->detokenize(set.tokens);
    EXPECT_EQ(text.find("(def") != std::string::npos, kind != CalibrationKind::kGeneral);
    EXPECT_EQ(text.find("miller") != std::string::npos, kind != CalibrationKind::kCode);
    // Parts of tasks do occur in programs, and are left out.
    if (kind == CalibrationKind::kCode) {
      EXPECT_GT(set.n_dropped, 0u);
    }
  }
  EXPECT_TRUE(overlap.touches(tokenizer->encode("(x)\n" + tasks[70].program.text(), {false, false})));
  EXPECT_THROW(parse_calibration_kind("random"), Error);
}

TEST(Completions, DependOnSeedTaskAndNumberAlone) {
  const TestFolder folder;
  write_model(folder.file("m.gguf"), 32);
  const std::vector<train::abacus::Task> tasks = train::abacus::make_tasks(4, 3);
  CompletionOptions options;
  options.per_task = 3;
  options.most_tokens = 12;
  std::vector<uint64_t> n_tokens;
  for (const uint32_t n_sequences : {1u, 5u}) {
    Ledger ledger;
    PlanRequest request;
    request.context = 256;
    request.n_sequences = n_sequences;
    const auto engine = Engine::load(folder.file("m.gguf"), request, ledger);
    uint64_t last = 0;
    const CompletionOutcomes out = complete_tasks(*engine, tasks, options, [&](uint64_t done, uint64_t all) {
      EXPECT_EQ(all, 12u);
      EXPECT_GE(done, last);
      last = done;
    });
    EXPECT_EQ(last, 12u);
    EXPECT_EQ(out.passed.size(), 12u);
    EXPECT_EQ(out.n_by_verdict[0] + out.n_by_verdict[1] + out.n_by_verdict[2] + out.n_by_verdict[3], 12u);
    n_tokens.push_back(out.n_tokens);
  }
  EXPECT_EQ(n_tokens[0], n_tokens[1]) << "whoever else is in the batch";
}

/// The model that ships writes programs for tasks that training never saw.
TEST(Completions, TheModelThatShipsSolvesHeldOutTasks) {
  const std::string path = source_path("models/coder-mini.gguf");
  EXPECT_LE(std::filesystem::file_size(path), 2'000'000u);
  Ledger ledger;
  PlanRequest request;
  request.context = 256;
  request.n_sequences = 8;
  const auto engine = Engine::load(path, request, ledger);
  CompletionOptions options;
  options.per_task = 1;
  options.temperature = 0;
  const auto out = complete_tasks(*engine, train::abacus::make_tasks(40, 5), options, [](uint64_t, uint64_t) {});
  EXPECT_GE(out.pass_at_1(), 0.8);
}

TEST(QuantStudy, MeasuresEveryWidthAfterEveryCalibration) {
  const TestFolder folder;
  write_model(folder.file("m.gguf"), 64);
  QuantStudyOptions options;
  options.widths = {"2", "Q8_0"};
  options.calibrations = {CalibrationKind::kGeneral, CalibrationKind::kCode};
  options.n_tasks = 3;
  options.completions.per_task = 2;
  options.completions.most_tokens = 8;
  options.calibration_tokens = options.perplexity_tokens = 512;
  options.texts.text = {prose_file(folder)};
  options.folder = folder.file("work");
  options.tune_steps = 2;
  size_t last = 0;
  const ModelStudy study =
      study_quantization(folder.file("m.gguf"), options, [&](size_t done, const std::string&) { last = done; });
  EXPECT_EQ(study.rows.size(), 8u);
  EXPECT_EQ(study_rows(options), 9u);
  EXPECT_LE(last, 9u);
  EXPECT_EQ(study.pairs.size(), 4u);
  for (size_t i = 0; i < study.rows.size(); ++i) {
    const StudyRow& row = study.rows[i];
    EXPECT_EQ(row.width, i < 4 ? "2" : "Q8_0");
    EXPECT_EQ(row.calibration, i / 2 % 2 == 0 ? "general" : "code");
    EXPECT_EQ(row.tuned, i % 2 == 1);
    EXPECT_EQ(row.completions.passed.size(), 6u);
    EXPECT_EQ(row.against_original.both + row.against_original.neither + row.against_original.only_first +
                  row.against_original.only_second,
              6u);
    if (row.tuned) {
      EXPECT_GT(row.bytes, study.rows[i - 1].bytes) << "an adapter counts";
    }
  }
  EXPECT_NEAR(study.rows[4].bits, 8.5, 1e-9);
  EXPECT_NEAR(study.original.bits, 16, 1e-9);
  EXPECT_LT(study.rows[0].bits, 3.5);
  EXPECT_GT(study.rows[0].text_perplexity, 1);
  EXPECT_TRUE(std::filesystem::is_empty(options.folder)) << "files that were made on the way are gone";
  options.texts.text.clear();
  EXPECT_THROW(study_quantization(folder.file("m.gguf"), options, [](size_t, const std::string&) {}), Error);
}

/// A study with these numbers of passes among 1000, the first ones.
StudyRow row_of(const std::string& width, const std::string& calibration, size_t n_passed, double p) {
  StudyRow row;
  row.width = width;
  row.calibration = calibration;
  row.format = "AQLM";
  row.saved = 0.7;
  row.adjusted_p = p;
  row.completions.passed.assign(1000, 0);
  std::fill_n(row.completions.passed.begin(), n_passed, uint8_t{1});
  return row;
}

TEST(StudyVerdicts, FollowTheNumbers) {
  ModelStudy study;
  study.original = row_of("", "", 900, 1);
  study.rows = {row_of("4", "code", 890, 0.2), row_of("4", "general", 880, 0.06), row_of("3", "code", 800, 1e-5),
                row_of("2", "code", 500, 1e-9), row_of("2", "general", 300, 1e-9)};
  study.pairs = {{"2", "general", "code", false, -0.2, {}, 1e-6, 1e-6, 1e-3}};
  const auto holds = [&](const char* part) {
    const std::vector<StudyVerdict> all = study_verdicts(study);
    const auto found = std::find_if(all.begin(), all.end(),
                                    [&](const StudyVerdict& v) { return v.text.find(part) != std::string::npos; });
    EXPECT_NE(found, all.end()) << part;
    return found != all.end() && found->holds;
  };
  EXPECT_TRUE(holds("At 4 bits"));
  EXPECT_TRUE(holds("At 2 bits pass@1 is significantly lower"));
  EXPECT_TRUE(holds("3 bits lose less"));
  EXPECT_TRUE(holds("At 2 bits calibration on code is significantly better"));
  study.pairs[0].difference = 0.2;  // general is better
  EXPECT_FALSE(holds("At 2 bits calibration on code is significantly better"));
  study.rows[1].adjusted_p = 0.04;
  EXPECT_FALSE(holds("At 4 bits"));
  study.rows[1].adjusted_p = 0.06;
  study.rows[0].saved = 0.6;
  EXPECT_FALSE(holds("At 4 bits"));
  study.rows[4] = row_of("2", "general", 950, 1e-9);  // significantly higher is no drop
  EXPECT_FALSE(holds("At 2 bits pass@1 is significantly lower"));
  StudyRow tuned = study.rows[3];
  tuned.tuned = true;
  study.rows.push_back(tuned);
  EXPECT_FALSE(holds("recovers a part"));
  study.rows.back().completions.passed.assign(1000, 1);
  EXPECT_TRUE(holds("recovers a part"));
}

}  // namespace
}  // namespace mneme
