#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/atomic_file.h"
#include "base/half.h"
#include "base/parallel.h"
#include "base/test_error.h"
#include "train/export_adapter.h"
#include "train/export_gguf.h"
#include "train/finished_run.h"
#include "train/optim/bf16_weights.h"
#include "train/sampler.h"
#include "train/test_batch.h"
#include "train/trainer.h"
#include "weights/gguf_test_bytes.h"

namespace mneme::train {
namespace {

using testing::HasSubstr;

constexpr const char* kRecipe = R"(
[run]
micro_batch_tokens = 256
checkpoint_minutes = 1000
[model]
width = 32
layers = 2
heads = 2
ffn_width = 32
context = 256
products = "f32"
[tokenizer]
size = 500
sample_chars = 40000
[data]
books = "FOLDER/books"
[optimizer]
kind = "adamw"
rate = 5e-3
warmup_steps = 2
steps = 6
[eval]
every_steps = 3
probes = 4
distances = [60]
[[stage]]
until_step = 6
sequence_tokens = 128
batch_tokens = 512
)";

/// Runs of a recipe in a folder with a small book.
class AdapterRun : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(folder_.file("books"));
    AtomicFile book(folder_.file("books/a.txt"));
    for (int i = 0; i < 40; ++i) {
      book.write("The sailor number " + std::to_string(i) +
                 " went to sea and saw a whale. He came home in winter and told the tale.\n\n");
    }
    book.commit();
    recipe_ = kRecipe;
    replace("FOLDER", folder_.file(""));
    set_n_threads(1);
  }

  void replace(const std::string& old, const std::string& text) {
    recipe_.replace(recipe_.find(old), old.size(), text);
  }

  /// Puts a base in the place of sizes and vocabulary.
  void stand_on(const std::string& base, const std::string& adapter) {
    const size_t begin = recipe_.find("[model]"), end = recipe_.find("[data]");
    recipe_.replace(begin, end - begin, "[model]\nbase = \"" + base + "\"\n" + adapter);
  }

  std::unique_ptr<Trainer> make(Ledger& ledger, const std::string& name, bool resume,
                                Trainer::Callbacks callbacks = {}) {
    return std::make_unique<Trainer>(ledger, parse_recipe(recipe_, "test"), recipe_, folder_.file(name), resume,
                                     std::move(callbacks));
  }

  /// A trained run, written as exact.gguf and base.gguf.
  void make_base(DType dtype) {
    Ledger ledger;
    make(ledger, "base", false)->run();
    FinishedRun run = load_run(ledger, folder_.file("base"));
    export_gguf(folder_.file("exact.gguf"), "t", *run.model, *run.tokenizer, DType::kF32);
    export_gguf(folder_.file("base.gguf"), "t", *run.model, *run.tokenizer, dtype);
  }

  static std::vector<float> trained(LlamaModel<float>& model) {
    std::vector<float> all;
    for (const auto* p : model.trained_list()) all.insert(all.end(), p->value, p->value + p->size());
    return all;
  }

  TestFolder folder_;
  std::string recipe_;
};

/// Trained over a packed base with a teacher, cut and resumed, exported, and stacked below a second adapter.
TEST_F(AdapterRun, TrainsResumesExportsAndStacks) {
  make_base(DType::kQ8_0);
  const std::string base = folder_.file("base.gguf");
  stand_on(base, "[adapter]\nrank = 2\ntargets = [\"all\"]\nstart = \"svd\"\nteacher = \"" +
                     folder_.file("exact.gguf") + "\"\n");
  Ledger ledger;
  const auto whole = make(ledger, "whole", false);
  EXPECT_TRUE(whole->run());
  Trainer::Callbacks callbacks;
  uint64_t seen = 0;
  callbacks.step = [&](const StepReport& report) { seen = report.step; };
  callbacks.stop = [&] { return seen == 4; };
  EXPECT_FALSE(make(ledger, "cut", false, callbacks)->run());
  const auto second = make(ledger, "cut", true);
  EXPECT_TRUE(second->run());
  EXPECT_EQ(trained(whole->model()), trained(second->model()));

  FinishedRun run = load_run(ledger, folder_.file("cut"));
  EXPECT_EQ(trained(*run.model), trained(whole->model()));
  const std::string file = folder_.file("adapter.gguf");
  export_adapter(file, "t", *run.model, *run.recipe.adapter, *run.base, DType::kF32);
  const AdapterFile adapter(file);
  EXPECT_EQ(adapter.pairs().size(), 14u);
  adapter.check_base(*run.base);
  const ModelFile exact = open_gguf(folder_.file("exact.gguf"));
  EXPECT_THAT(error_of([&] { adapter.check_base(exact); }), HasSubstr("whose rounding it corrects"));
  EXPECT_THROW(export_adapter(file, "t", *run.model, *run.recipe.adapter, *run.base, DType::kQ8_0), Error);

  // A second adapter that starts at zero above the first: the same model.
  stand_on(base, "");
  replace("[model]\nbase = \"" + base + "\"\n",
          "[model]\nbase = \"" + base + "\"\n[adapter]\nbelow = [\"" + file + "\"]\n");
  const auto above = make(ledger, "above", false);
  const RandomBatch data(500, {0, 100}, 3);
  const auto loss = [&](LlamaModel<float>& model) {
    Executor<float> executor(ledger, model.program(), model.parameter_list());
    executor.evaluate(data.view());
    return model.loss().loss();
  };
  EXPECT_EQ(above->model().trained_list().size(), 8u);
  EXPECT_EQ(loss(above->model()), loss(*run.model));
  EXPECT_TRUE(above->run());
  EXPECT_NE(loss(above->model()), loss(*run.model));
}

/// All weights of a base can be trained too; nothing but its values is new.
TEST_F(AdapterRun, FineTunesAllWeightsOfABase) {
  make_base(DType::kQ8_0);
  stand_on(folder_.file("exact.gguf"), "");
  Ledger ledger;
  const auto trainer = make(ledger, "tuned", false);
  FinishedRun original = load_run(ledger, folder_.file("base"));
  EXPECT_EQ(trained(trainer->model()), trained(*original.model));
  EXPECT_TRUE(trainer->run());
  FinishedRun run = load_run(ledger, folder_.file("tuned"));
  const std::string text = "The sailor number 7 told 12 tales, \xC3\xA9 and\nall.";
  const auto ids = [&](const TrainTokenizer& tokenizer) {
    std::vector<int32_t> list;
    for (const TokenSpan& token : tokenizer.encode(text)) list.push_back(token.id);
    return list;
  };
  EXPECT_EQ(ids(*run.tokenizer), ids(*original.tokenizer)) << "the base's vocabulary";
  export_gguf(folder_.file("tuned.gguf"), "t", *run.model, *run.tokenizer, DType::kF32, run.base.get());
  const ModelFile file = open_gguf(folder_.file("tuned.gguf"));
  EXPECT_EQ(file.metadata().find_array_string("tokenizer.ggml.tokens")->size(), 500u);
  EXPECT_TRUE(file.metadata().has("tokenizer.chat_template"));

  const std::vector<float> before = trained(*original.model), after = trained(*run.model);
  blend_with_base(*run.base, 0.25f, *run.model);
  const std::vector<float> between = trained(*run.model);
  ASSERT_EQ(between.size(), before.size());
  for (size_t i = 0; i < before.size(); ++i) ASSERT_NEAR(between[i], before[i] + 0.25f * (after[i] - before[i]), 1e-6f);
  blend_with_base(*run.base, 0, *run.model);
  EXPECT_EQ(trained(*run.model), before);
  EXPECT_THROW(blend_with_base(*run.base, 1.5f, *run.model), Error);
}

/// LoRA without a base: adapted matrices stay as they were drawn, in no checkpoint, and are exported with the adapter
/// added.
TEST_F(AdapterRun, LearnsAboveRandomMatrices) {
  replace("[tokenizer]", "[adapter]\nrank = 4\nalpha = 8\ntargets = [\"all\"]\n[tokenizer]");
  Ledger ledger;
  const auto whole = make(ledger, "whole", false);
  EXPECT_EQ(whole->model().trained_list().size(), 1u + 5 + 2 * 14) << "embedding, norms and factors";
  const auto matrix = [](LlamaModel<float>& model) {
    const Parameter<float>& p = *model.parameters().find("blk.1.ffn_up.weight");
    return std::vector<float>(p.value, p.value + p.size());
  };
  const std::vector<float> drawn = matrix(whole->model());
  EXPECT_GT(*std::max_element(drawn.begin(), drawn.end()), 0.02f);
  const RandomBatch data(500, {0, 100}, 3);
  const auto loss = [&](LlamaModel<float>& model) {
    Executor<float> executor(ledger, model.program(), model.parameter_list());
    executor.evaluate(data.view());
    return model.loss().loss();
  };
  const double before = loss(whole->model());
  EXPECT_TRUE(whole->run());
  EXPECT_EQ(matrix(whole->model()), drawn);
  const double after = loss(whole->model());
  EXPECT_NE(after, before);

  FinishedRun run = load_run(ledger, folder_.file("whole"));
  EXPECT_EQ(loss(*run.model), after);
  export_gguf(folder_.file("model.gguf"), "t", *run.model, *run.tokenizer, DType::kF32);
  const ModelFile file = open_gguf(folder_.file("model.gguf"));
  LlamaModel<float> added(ledger, llama_sizes_of(file), GemmFormat::kFull);
  load_weights(file, added);
  EXPECT_NE(matrix(added), drawn);
  EXPECT_NEAR(loss(added), after, 1e-5 * after);
}

TEST_F(AdapterRun, MemoryLimitCountsThePackedBase) {
  make_base(DType::kQ8_0);
  stand_on(folder_.file("base.gguf"), "[adapter]\nrank = 2\n");
  Ledger ledger;
  const auto trainer = make(ledger, "free", false);
  const ModelFile base = open_gguf(folder_.file("base.gguf"));
  const uint64_t weights = ledger.used(Tier::kRam, Tag::kWeights);
  EXPECT_GE(weights, base.tensor_bytes());
  EXPECT_LT(weights, base.tensor_bytes() + 16384) << "the factors and norms take a few pages";
  EXPECT_LT(ledger.used(Tier::kRam, Tag::kGradient), 8192u);
  Ledger limited(base.tensor_bytes() + 40000);
  EXPECT_THROW(make(limited, "limited", false), Error);
}

TEST_F(AdapterRun, RecipesThatContradictThemselvesAreRefused) {
  const std::string original = recipe_;
  const auto why = [&](const std::string& base, const std::string& rest) {
    recipe_ = original;
    stand_on(base, rest);
    return error_of([&] { parse_recipe(recipe_, "test"); });
  };
  EXPECT_EQ(why("b", "[adapter]\n"), "no error");
  EXPECT_THAT(why("b", "width = 32\n[adapter]\n"), HasSubstr("beside those of the base"));
  EXPECT_THAT(why("", "[adapter]\nteacher = \"t\"\n"), HasSubstr("teacher: expected model.base"));
  EXPECT_THAT(why("", "[adapter]\nbelow = [\"t\"]\n"), HasSubstr("below: expected model.base"));
  EXPECT_THAT(why("b", "[adapter]\nstart = \"svd\"\n"), HasSubstr("adapter.teacher"));
  EXPECT_THAT(why("b", "[adapter]\ntargets = [\"attn_x\"]\n"), HasSubstr("attn_x"));
  EXPECT_THAT(why("b", "[quantization]\nweights = \"Q9_9\"\n"), HasSubstr("Q9_9"));
  EXPECT_THAT(why("b", "[quantization]\nweights = \"ternary\"\n[adapter]\n"),
              HasSubstr("no precision or quantization"));
  EXPECT_THAT(why("b", "[tokenizer]\nsize = 400\n"), HasSubstr("beside that of the base"));
}

/// Matrices in bfloat16 without masters: half the bytes, the same bits after a resume, and small updates that add up.
TEST_F(AdapterRun, Bf16WeightsWithoutMastersLearnAndResume) {
  replace("products = \"f32\"", "weights = \"bf16\"");
  replace("every_steps = 3", "every_steps = 0");
  Ledger ledger, plain_ledger;
  const auto whole = make(ledger, "whole", false);
  const size_t matrices = 500 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 32), vectors = 5 * 32;
  EXPECT_LE(ledger.used(Tier::kRam, Tag::kWeights), matrices * 2 + vectors * 4 + 16384);
  EXPECT_TRUE(whole->run());
  Trainer::Callbacks callbacks;
  uint64_t seen = 0;
  callbacks.step = [&](const StepReport& report) { seen = report.step; };
  callbacks.stop = [&] { return seen == 3; };
  EXPECT_FALSE(make(ledger, "cut", false, callbacks)->run());
  const auto second = make(ledger, "cut", true);
  EXPECT_TRUE(second->run());
  const auto values = [](Trainer& trainer) {
    std::vector<float> all;
    for (const auto* p : trainer.model().trained_list()) {
      std::vector<float> row(p->columns);
      for (size_t i = 0; i < p->rows; ++i) {
        copy_row(*p, i, row.data());
        all.insert(all.end(), row.begin(), row.end());
      }
    }
    return all;
  };
  EXPECT_EQ(values(*whole), values(*second));
  replace("weights = \"bf16\"", "products = \"f32\"");
  const auto plain = make(plain_ledger, "plain", false);
  EXPECT_TRUE(plain->run());
  EXPECT_NEAR(whole->progression().loss_average, plain->progression().loss_average, 0.02);
}

TEST(StochasticRounding, IsRightOnAverageAndKeepsWhatFits) {
  const std::vector<float> x{1.0f, 1.0f + 0x1p-10f, -3.0f - 0x1p-9f, 0.0f, 0x1.9p-130f};
  std::vector<double> mean(x.size(), 0);
  constexpr int kDraws = 20000;
  for (int draw = 0; draw < kDraws; ++draw) {
    std::vector<uint16_t> y(x.size());
    round_stochastically(x.data(), x.size(), 7, static_cast<uint64_t>(draw), y.data());
    for (size_t i = 0; i < x.size(); ++i) mean[i] += static_cast<double>(bf16_to_f32(y[i]));
  }
  for (double& m : mean) m /= kDraws;
  EXPECT_EQ(mean[0], 1.0);
  EXPECT_EQ(mean[3], 0.0);
  // A step of bfloat16 at 1 is 2^-7; the deviation of the mean is below step / 2 / sqrt(draws).
  for (const size_t i : {size_t{1}, size_t{2}}) {
    EXPECT_NEAR(mean[i], x[i], 4 * 0x1p-6 / 2 / std::sqrt(kDraws)) << i;
  }
}

/// What is exported holds, bit for bit, the values that products saw in training.
TEST_F(AdapterRun, QuantisationAwareTrainingExportsWhatItTrained) {
  replace("width = 32", "width = 256");
  replace("ffn_width = 32", "ffn_width = 256");
  replace("layers = 2", "layers = 1");
  replace("every_steps = 3", "every_steps = 0");
  const std::string original = recipe_;
  for (const std::string weights : {"ternary", "Q8_0", "Q4_0", "Q3_K", "Q2_K", "MXFP4", "E2M1"}) {
    recipe_ = original;
    replace("[tokenizer]", "[quantization]\nweights = \"" + weights + "\"\n[tokenizer]");
    replace("until_step = 6", "until_step = 2");
    replace("steps = 6", "steps = 2");
    Ledger ledger;
    const auto trainer = make(ledger, weights, false);
    EXPECT_TRUE(trainer->run());
    FinishedRun run = load_run(ledger, folder_.file(weights));
    const std::string path = folder_.file(weights + ".gguf");
    export_gguf(path, "t", *run.model, *run.tokenizer, DType::kF16);
    const ModelFile file = open_gguf(path);
    for (const auto& p : run.model->parameters().all()) {
      if (p.role != Role::kAttention && p.role != Role::kFeedForward) continue;
      std::vector<float> seen(p.size()), stored(p.size());
      run.model->seen_values(p, seen.data());
      const TensorView& view = file.find(p.name)->view;
      for (size_t i = 0; i < p.rows; ++i) decode_row(view, i, stored.data() + i * p.columns);
      EXPECT_EQ(seen, stored) << weights << " " << p.name;
      EXPECT_EQ(view.dtype, weights == "ternary" ? DType::kTQ2_0
                            : weights == "E2M1"  ? DType::kF32
                                                 : find_dtype(weights)->dtype);
      EXPECT_FALSE(std::equal(seen.begin(), seen.end(), p.value)) << "training kept its f32 master";
      std::sort(seen.begin(), seen.end());
      const auto levels = std::unique(seen.begin(), seen.end()) - seen.begin();
      if (weights == "ternary") {
        EXPECT_EQ(levels, 3);
      }
    }
  }
}

/// Scales of BIPOLAR2 that are trained: parameters of the run, in its checkpoints, written as training saw them. Rows
/// that have no groups of 128 get the type that quantisation puts in place of BIPOLAR2. A teacher goes with all of it.
TEST_F(AdapterRun, LearnedStepsTrainResumeAndAreExported) {
  replace("width = 32", "width = 128");
  replace("ffn_width = 32", "ffn_width = 160");
  replace("layers = 2", "layers = 1");
  replace("every_steps = 3", "every_steps = 0");
  make_base(DType::kQ8_0);
  const std::string keys =
      "products = \"f32\"\n[quantization]\nweights = \"BIPOLAR2\"\nsteps = \"learned\"\nteacher = \"" +
      folder_.file("exact.gguf") + "\"\n";
  stand_on(folder_.file("base.gguf"), keys);
  Ledger ledger;
  const auto whole = make(ledger, "whole", false);
  const auto values = [](LlamaModel<float>& model, const char* name) {
    const Parameter<float>& p = *model.parameters().find(name);
    return std::vector<float>(p.value, p.value + p.size());
  };
  constexpr const char* kSteps = "blk.0.ffn_up.weight.steps";
  EXPECT_EQ(whole->model().parameters().find("blk.0.ffn_down.weight.steps"), nullptr);
  // One gradient and two moments a step, as for any other parameter.
  const size_t n_trained = whole->model().parameters().n_trained();
  EXPECT_EQ(n_trained, 500u * 128 + 3 * 128 + (4 * 128 + 3 * 160) * 128 + (4 * 128 + 2 * 160));
  EXPECT_GE(ledger.used(Tier::kRam, Tag::kOptimizer), 8 * n_trained);
  EXPECT_GE(ledger.used(Tier::kRam, Tag::kGradient), 4 * n_trained);
  const std::vector<float> before = values(whole->model(), kSteps);
  EXPECT_EQ(before.size(), 160u);
  EXPECT_TRUE(whole->run());
  const std::vector<float> after = values(whole->model(), kSteps);
  for (size_t i = 0; i < before.size(); ++i) EXPECT_NE(before[i], after[i]) << i;
  Trainer::Callbacks callbacks;
  uint64_t seen_steps = 0;
  callbacks.step = [&](const StepReport& report) { seen_steps = report.step; };
  callbacks.stop = [&] { return seen_steps == 3; };
  EXPECT_FALSE(make(ledger, "cut", false, callbacks)->run());
  const auto second = make(ledger, "cut", true);
  EXPECT_TRUE(second->run());
  EXPECT_EQ(trained(whole->model()), trained(second->model()));

  FinishedRun run = load_run(ledger, folder_.file("whole"));
  const std::string path = folder_.file("bipolar.gguf");
  export_gguf(path, "t", *run.model, *run.tokenizer, DType::kF32, run.base.get());
  const ModelFile file = open_gguf(path);
  EXPECT_EQ(file.find(kSteps), nullptr);
  EXPECT_EQ(file.find("blk.0.ffn_down.weight")->view.dtype, DType::kQ4_0);
  EXPECT_EQ(file.find("blk.0.ffn_up.weight")->view.dtype, DType::kBipolar2);
  // The file read as a plain model of f32 computes the loss of the run, to the bit.
  LlamaModel<float> plain(ledger, llama_sizes_of(file), GemmFormat::kFull);
  load_weights(file, plain);
  const RandomBatch data(500, {0, 100}, 3);
  const auto loss = [&](LlamaModel<float>& model) {
    Executor<float> executor(ledger, model.program(), model.parameter_list());
    executor.evaluate(data.view());
    return model.loss().loss();
  };
  EXPECT_EQ(loss(plain), loss(*run.model));
  EXPECT_EQ(loss(plain), loss(whole->model()));
  Sampler sampler(ledger, *run.model, 1, 20), other(ledger, plain, 1, 20);
  EXPECT_EQ(sampler.run({{1, 300}}, 2, {}), other.run({{1, 300}}, 2, {}));

  // Without the teacher it is another run.
  const std::string alone = keys.substr(0, keys.find("teacher"));
  stand_on(folder_.file("base.gguf"), alone);
  const auto untaught = make(ledger, "untaught", false);
  EXPECT_TRUE(untaught->run());
  EXPECT_NE(trained(untaught->model()), trained(whole->model()));
}

TEST_F(AdapterRun, QuantisationKeysThatContradictThemselvesAreRefused) {
  const std::string original = recipe_;
  const auto why = [&](const std::string& base, const std::string& rest) {
    recipe_ = original;
    if (base.empty()) {
      replace("[tokenizer]", "[quantization]\n" + rest + "[tokenizer]");
    } else {
      stand_on(base, "[quantization]\n" + rest);
    }
    return error_of([&] { parse_recipe(recipe_, "test"); });
  };
  const std::string learned = "weights = \"BIPOLAR2\"\nsteps = \"learned\"\n";
  EXPECT_EQ(why("", learned), "no error");
  EXPECT_EQ(why("b", learned + "teacher = \"t\"\nkl_weight = 0.5\nce_weight = 0.5\n"), "no error");
  EXPECT_THAT(why("", "weights = \"Q4_0\"\nsteps = \"learned\"\n"), HasSubstr("BIPOLAR1 to BIPOLAR8"));
  EXPECT_THAT(why("", "weights = \"ternary\"\nsteps = \"learned\"\n"), HasSubstr("BIPOLAR1 to BIPOLAR8"));
  EXPECT_THAT(why("", "weights = \"BIPOLAR2\"\nsteps = \"free\"\n"), HasSubstr("fixed, learned"));
  EXPECT_THAT(why("", learned + "teacher = \"t\"\n"), HasSubstr("teacher: expected model.base"));
  EXPECT_THAT(why("b", learned + "kl_weight = 1\n"), HasSubstr("expected quantization.teacher"));
  EXPECT_THAT(why("b", learned + "teacher = \"t\"\nkl_weight = 0\nce_weight = 0\n"), HasSubstr("found neither"));
  EXPECT_THAT(why("b", learned + "[adapter]\n"), HasSubstr("no precision or quantization"));
}

}  // namespace
}  // namespace mneme::train
