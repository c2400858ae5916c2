#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>

#include "base/atomic_file.h"
#include "base/parallel.h"
#include "base/test_error.h"
#include "engine/engine.h"
#include "engine/sequence_logits.h"
#include "train/activation_policy.h"
#include "train/export_gguf.h"
#include "train/finished_run.h"
#include "train/ops/packed_product.h"
#include "train/sampler.h"
#include "train/test_batch.h"
#include "train/trainer.h"
#include "weights/gguf_test_bytes.h"
#include "weights/quantize.h"

namespace mneme::train {
namespace {

using testing::HasSubstr;

constexpr const char* kRecipe = R"(
[run]
micro_batch_tokens = 256
checkpoint_minutes = 1000
[model]
width = 256
layers = 2
heads = 4
ffn_width = 256
context = 256
products = "f32"
[tokenizer]
size = 500
sample_chars = 40000
[data]
books = "FOLDER/books"
[optimizer]
kind = "adamw"
rate = 2e-3
warmup_steps = 2
steps = 6
[eval]
every_steps = 0
probes = 4
distances = [60]
[[stage]]
until_step = 6
sequence_tokens = 128
batch_tokens = 256
)";

/// A small book, and a dense model that was trained on it for six steps, in F32 and in Q8_0. Made once for all tests.
struct Dense {
  Dense() {
    std::filesystem::create_directories(folder.file("books"));
    AtomicFile book(folder.file("books/a.txt"));
    for (int i = 0; i < 40; ++i) {
      book.write("The sailor number " + std::to_string(i) +
                 " went to sea and saw a whale. He came home in winter and told the tale.\n\n");
    }
    book.commit();
    recipe = kRecipe;
    recipe.replace(recipe.find("FOLDER"), 6, folder.file(""));
    Ledger ledger;
    Trainer(ledger, parse_recipe(recipe, "test"), recipe, folder.file("base"), false, {}).run();
    FinishedRun run = load_run(ledger, folder.file("base"));
    export_gguf(path(DType::kF32), "t", *run.model, *run.tokenizer, DType::kF32);
    export_gguf(path(DType::kQ8_0), "t", *run.model, *run.tokenizer, DType::kQ8_0);
    tokenizer = std::move(run.tokenizer);
  }
  std::string path(DType dtype) const { return folder.file(std::string(dtype_info(dtype).name) + ".gguf"); }

  TestFolder folder;
  std::string recipe;
  std::unique_ptr<TrainTokenizer> tokenizer;
};

class ExpertRun : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    set_n_threads(1);
    dense_ = std::make_unique<Dense>();
  }
  static void TearDownTestSuite() { dense_.reset(); }
  void SetUp() override { recipe_ = dense_->recipe; }

  std::unique_ptr<Trainer> make(Ledger& ledger, const std::string& name, bool resume,
                                Trainer::Callbacks callbacks = {}) {
    return std::make_unique<Trainer>(ledger, parse_recipe(recipe_, "test"), recipe_, folder_.file(name), resume,
                                     std::move(callbacks));
  }

  /// Puts a base in the place of sizes and vocabulary.
  void stand_on(const std::string& base, const std::string& experts) {
    const size_t begin = recipe_.find("[model]"), end = recipe_.find("[data]");
    recipe_.replace(begin, end - begin, "[model]\nproducts = \"f32\"\nbase = \"" + base + "\"\n[experts]\n" + experts);
  }

  /// An up-cycled model before its first step, its routers drawn with the seed.
  std::unique_ptr<LlamaModel<float>> up_cycle(Ledger& ledger, const ModelFile& base, const ExpertOptions& experts,
                                              uint64_t seed = 1) {
    LlamaOptions options;
    options.base = &base;
    options.experts = &experts;
    auto model = std::make_unique<LlamaModel<float>>(ledger, llama_sizes_of(base), options);
    model->initialise(seed);
    load_weights(base, *model);
    return model;
  }

  TestFolder folder_;
  std::string recipe_;
  static std::unique_ptr<Dense> dense_;
};
std::unique_ptr<Dense> ExpertRun::dense_;

/// Logits of training's forward pass, [tokens, vocabulary].
std::vector<float> trained_logits(LlamaModel<float>& model, const RandomBatch& data) {
  Ledger ledger;
  Executor<float> executor(ledger, model.program(), model.parameter_list());
  executor.evaluate(data.view());
  const size_t n = data.tokens.size();
  std::vector<float> logits(n * model.sizes().vocabulary);
  const Parameter<float>& head = *model.parameters().find("token_embd.weight");
  packed_multiply(head.packed, executor.last_value(model.final_hidden()), n, false, logits.data());
  return logits;
}

std::unique_ptr<Engine> open(const std::string& path, Ledger& ledger) {
  PlanRequest request;
  request.kv = KvPolicy::parse("f32");
  return Engine::load(path, request, ledger);
}

/// How two sets of logits differ, token by token.
struct Agreement {
  double median = 0, worst = 0;  ///< Relative difference of a token's logits.
  size_t other_best = 0;         ///< Tokens whose most likely id differs.

  Agreement(const std::vector<float>& a, const std::vector<float>& b, size_t width) {
    std::vector<double> errors;
    for (size_t at = 0; at < a.size(); at += width) {
      double error = 0, size = 0;
      for (size_t i = at; i < at + width; ++i) {
        error += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
        size += std::pow(static_cast<double>(b[i]), 2);
      }
      errors.push_back(std::sqrt(error / size));
      const auto best = [&](const std::vector<float>& x) {
        return std::max_element(x.begin() + static_cast<ptrdiff_t>(at),
                                x.begin() + static_cast<ptrdiff_t>(at + width)) -
               x.begin();
      };
      other_best += best(a) != best(b) ? 1 : 0;
    }
    std::sort(errors.begin(), errors.end());
    median = errors[errors.size() / 2];
    worst = errors.back();
  }
};

/// The exported model computes what training computed. Sums have another order, so that a rounding of activations falls
/// on the other side once in a while: then a token differs by about a level of 1 / 127 of one value, which the bound of
/// the worst one allows.
void expect_agreement(const Agreement& agreement) {
  EXPECT_LT(agreement.median, 1e-5);
  EXPECT_LT(agreement.worst, 2e-3);
  EXPECT_EQ(agreement.other_best, 0u);
}

TEST_F(ExpertRun, LearnsAndEndsWithTheSameBitsAfterAStop) {
  stand_on(dense_->path(DType::kQ8_0), "count = 3\n");
  const std::string quiet = recipe_;
  recipe_.replace(recipe_.find("every_steps = 0"), 15, "every_steps = 6");  // recall, loss and a sample, once
  Ledger ledger;
  const auto whole = make(ledger, "whole", false);
  recipe_ = quiet;
  const double before = whole->held_out_loss(1000);
  EXPECT_TRUE(whole->run());
  EXPECT_LT(whole->held_out_loss(1000), before - 0.1);
  Trainer::Callbacks callbacks;
  uint64_t seen = 0;
  callbacks.step = [&](const StepReport& report) { seen = report.step; };
  callbacks.stop = [&] { return seen == 4; };
  EXPECT_FALSE(make(ledger, "cut", false, callbacks)->run());
  const auto second = make(ledger, "cut", true);
  EXPECT_TRUE(second->run());
  const auto values = [](LlamaModel<float>& model) {
    std::vector<float> all;
    for (const auto* p : model.trained_list()) all.insert(all.end(), p->value, p->value + p->size());
    return all;
  };
  EXPECT_EQ(values(whole->model()), values(second->model()));
  EXPECT_EQ(whole->model().trained_list().size(), 2 * (1 + 3 * 3u)) << "routers and routed experts alone";
  FinishedRun run = load_run(ledger, folder_.file("cut"));
  EXPECT_EQ(values(*run.model), values(whole->model()));
  const std::string log = read_text_file(folder_.file("whole/log.jsonl"));
  EXPECT_THAT(log, HasSubstr("busiest_expert"));
  EXPECT_THAT(log, HasSubstr("\"sample\""));

  // Frozen blocks are exported bit for bit, experts with the values that training saw.
  export_gguf(folder_.file("m.gguf"), "t", *run.model, *run.tokenizer, DType::kF16, run.base.get());
  const ModelFile file = open_gguf(folder_.file("m.gguf"));
  for (const char* part : {"gate", "up", "down"}) {
    const TensorView shared = file.find(fmt::format("blk.1.ffn_{}_shexp.weight", part))->view;
    const TensorView dense = run.base->find(fmt::format("blk.1.ffn_{}.weight", part))->view;
    ASSERT_EQ(shared.dtype, DType::kQ8_0);
    EXPECT_EQ(std::memcmp(shared.data, dense.data, dense.bytes()), 0);
    const TensorView stack = file.find(fmt::format("blk.1.ffn_{}_exps.weight", part))->view;
    EXPECT_EQ(stack.dtype, DType::kTQ2_0);
    EXPECT_EQ(stack.shape, (Shape{3, 256, 256}));
    for (size_t e = 0; e < 3; ++e) {
      const auto* p = run.model->parameters().find(fmt::format("blk.1.ffn_{}_exps.weight[{}]", part, e));
      std::vector<float> expected(p->size()), stored(p->size());
      const float scale = ternary_codes(p->value, p->rows, p->columns, expected.data());
      for (float& v : expected) v *= scale;
      for (size_t i = 0; i < p->rows; ++i) decode_row(stack, e * p->rows + i, stored.data() + i * p->columns);
      EXPECT_EQ(stored, expected);
    }
  }
}

TEST_F(ExpertRun, ExportedModelsComputeWhatTrainingComputed) {
  const ModelFile base = open_gguf(dense_->path(DType::kF32));
  const RandomBatch data(500, {0, 100}, 4);
  const auto with = [](size_t count, size_t used) {
    ExpertOptions options;
    options.count = count;
    options.used = used;
    return options;
  };
  ExpertOptions alternate = with(2, 1), ternary = with(2, 1), full = with(3, 2), random = with(2, 1);
  alternate.alternate = true;
  ternary.shared = ExpertOptions::Shared::kTernary;
  full.shared = ExpertOptions::Shared::kNone;
  full.ternary = false;
  random.start = ExpertOptions::Start::kRandom;
  const std::map<std::string, ExpertOptions> kinds = {
      {"four", with(4, 1)}, {"only", with(1, 1)}, {"both", with(2, 2)}, {"alternate", alternate},
      {"shared", ternary},  {"full", full},       {"random", random}};
  for (const auto& [name, options] : kinds) {
    SCOPED_TRACE(name);
    Ledger ledger;
    const auto model = up_cycle(ledger, base, options);
    const std::string path = folder_.file(name + ".gguf");
    export_gguf(path, "t", *model, *dense_->tokenizer, DType::kF32, &base);
    const auto engine = open(path, ledger);
    const Agreement agreement(sequence_logits(*engine, data.tokens), trained_logits(*model, data), 500);
    RecordProperty(name, fmt::format("median {:.1e}, worst {:.1e}", agreement.median, agreement.worst));
    expect_agreement(agreement);

    // A token alone meets the router and the experts it is sent to, and no other.
    const size_t n_layers = options.alternate ? 1 : 2;
    size_t n_ternary = 0;
    engine->workspace().input().observe([&](std::span<const kernels::MatmulTask> tasks, const kernels::MatmulInput&) {
      for (const kernels::MatmulTask& task : tasks) n_ternary += task.w.dtype == DType::kTQ2_0 ? 1 : 0;
    });
    const auto state = engine->make_state();
    engine->run(*state, std::span(data.tokens).first(1), [](size_t, size_t, const float*) {});
    engine->workspace().input().observe({});
    const size_t n_shared = options.shared == ExpertOptions::Shared::kTernary ? 1 : 0;
    EXPECT_EQ(n_ternary, options.ternary ? 3 * n_layers * (options.used + n_shared) : 0);
  }
}

/// Experts that are copies, weighed by numbers that add up to one, are the dense model; beside a shared expert they are
/// p_e times it more.
TEST_F(ExpertRun, AMixtureWithoutSharedExpertStartsAsTheDenseModel) {
  const ModelFile base = open_gguf(dense_->path(DType::kF32));
  const RandomBatch data(500, {0, 60}, 4);
  Ledger ledger;
  LlamaOptions frozen;
  frozen.base = &base;
  LlamaModel<float> dense(ledger, llama_sizes_of(base), frozen);
  ExpertOptions options;
  options.used = 2;
  options.ternary = false;
  options.shared = ExpertOptions::Shared::kNone;
  const auto expected = trained_logits(dense, data);
  const auto same = up_cycle(ledger, base, options);
  EXPECT_LT(Agreement(trained_logits(*same, data), expected, 500).worst, 1e-5);
  options.shared = ExpertOptions::Shared::kFrozen;
  const auto beside = up_cycle(ledger, base, options);
  EXPECT_GT(Agreement(trained_logits(*beside, data), expected, 500).median, 1e-3);
}

TEST_F(ExpertRun, QuantisingLeavesTernaryExperts) {
  const ModelFile base = open_gguf(dense_->path(DType::kF32));
  Ledger ledger;
  const ExpertOptions options;
  const auto model = up_cycle(ledger, base, options);
  export_gguf(folder_.file("m.gguf"), "t", *model, *dense_->tokenizer, DType::kF32, &base);
  const auto type_in = [&](const std::string& path, const std::string& tensor) {
    return open_gguf(path).find(tensor)->view.dtype;
  };
  const auto quantize = [&](const std::string& recipe, std::vector<std::pair<std::string, DType>> types) {
    const auto source = open_source(folder_.file("m.gguf"), ledger);
    QuantizeOptions how;
    how.recipe = recipe.empty() ? nullptr : find_quant_recipe(recipe);
    how.tensor_types = std::move(types);
    quantize_model(*source, folder_.file("q.gguf"), how, ledger);
    return folder_.file("q.gguf");
  };
  for (const char* recipe : {"Q4_0", "Q8_0"}) {
    const std::string file = quantize(recipe, {});
    EXPECT_EQ(type_in(file, "blk.0.ffn_up_exps.weight"), DType::kTQ2_0);
    EXPECT_EQ(type_in(file, "blk.0.ffn_up_shexp.weight"), find_quant_recipe(recipe)->base);
    EXPECT_EQ(type_in(file, "blk.0.ffn_gate_inp.weight"), DType::kF32);
    const auto engine = open(file, ledger);
    EXPECT_EQ(sequence_logits(*engine, std::vector<int32_t>{1, 5}).size(), 1000u);
  }
  const std::string packed = quantize("", {{"_exps", DType::kTQ1_0}, {"_shexp", DType::kQ4_0}});
  EXPECT_EQ(type_in(packed, "blk.0.ffn_up_shexp.weight"), DType::kQ4_0);
  EXPECT_EQ(type_in(packed, "blk.0.attn_q.weight"), DType::kF32);
  const ModelFile one = open_gguf(packed), two = open_gguf(folder_.file("m.gguf"));
  const TensorView a = one.find("blk.1.ffn_down_exps.weight")->view, b = two.find("blk.1.ffn_down_exps.weight")->view;
  EXPECT_EQ(a.dtype, DType::kTQ1_0);
  std::vector<float> row_a(256), row_b(256);
  for (size_t i = 0; i < a.rows(); ++i) {
    decode_row(a, i, row_a.data());
    decode_row(b, i, row_b.data());
    ASSERT_EQ(row_a, row_b);
  }
  EXPECT_THAT(error_of([&] { quantize("Q8_0", {{"no_such", DType::kQ4_0}}); }), HasSubstr("contains 'no_such'"));
}

/// Whatever is kept, computed again or moved to disk, gradients have the same bits.
TEST(ExpertPolicies, AllChoicesGiveBitEqualGradients) {
  using enum Saving;
  LlamaSizes sizes;
  sizes.vocabulary = 61;
  sizes.width = sizes.ffn_width = 64;
  sizes.n_layers = 3;
  sizes.n_heads = sizes.n_kv_heads = 4;
  sizes.context = 256;
  const RandomBatch data(61, {0, 100, 256}, 2);
  for (const auto shared : {ExpertOptions::Shared::kFrozen, ExpertOptions::Shared::kTernary}) {
    ExpertOptions experts;
    experts.shared = shared;
    experts.used = 2;
    LlamaOptions options;
    options.experts = &experts;
    std::vector<float> expected;
    for (const SavingChoice& choice :
         {SavingChoice{kKeep, kKeep, kKeep, 1}, SavingChoice{kKeep, kRecompute, kKeep, 1}, kAnchorsOnly,
          SavingChoice{kOffload, kOffload, kOffload, 1}, SavingChoice{kOffload, kRecompute, kRecompute, 1}}) {
      Ledger ledger;
      LlamaModel<float> model(ledger, sizes, options);
      model.initialise(7);
      apply_saving(model, choice);
      Executor<float> executor(ledger, model.program(), model.parameter_list());
      model.parameters().start_step();
      executor.train(data.view());
      std::vector<float> all;
      for (const auto& p : model.parameters().all()) all.insert(all.end(), p.grad, p.grad + p.size());
      if (expected.empty()) expected = all;
      EXPECT_EQ(all, expected) << choice.description();
    }
  }
}

TEST_F(ExpertRun, RecipesThatContradictThemselvesAreRefused) {
  const std::string original = recipe_;
  const auto why = [&](const std::string& base, const std::string& keys) {
    recipe_ = original;
    stand_on(base, keys);
    return error_of([&] { parse_recipe(recipe_, "test"); });
  };
  EXPECT_EQ(why("b", ""), "no error");
  EXPECT_EQ(why("b", "shared = \"none\"\nused = 2\nprecision = \"full\"\n"), "no error");
  EXPECT_THAT(why("", ""), HasSubstr("line 8: experts.count: expected model.base"));
  const std::string several = why("b", "count = 2\nused = 3\nlayers = \"odd\"\nexpert = 1\n");
  EXPECT_THAT(several, HasSubstr("3 problems"));
  EXPECT_THAT(several, HasSubstr("line 10: experts.used: expected at most count 2, found 3"));
  EXPECT_THAT(several, HasSubstr("line 11: experts.layers: expected one of all, alternate, found odd"));
  EXPECT_THAT(several, HasSubstr("line 12: unknown key experts.expert"));
  EXPECT_THAT(why("b", "shared = \"none\"\n"), HasSubstr("expected at least 2 without a shared expert"));
  EXPECT_THAT(why("b", "precision = \"full\"\nactivations = \"tokens\"\n"),
              HasSubstr("line 10: experts.activations: expected ternary experts"));
  EXPECT_THAT(why("b", "count = 0\n"), HasSubstr("experts.count: expected a value from 1"));
  EXPECT_THAT(why("b", "[quantization]\nweights = \"ternary\"\n"), HasSubstr("no [quantization]"));
  EXPECT_THAT(why("b", "[adapter]\n"), HasSubstr("no [adapter]"));
}

TEST_F(ExpertRun, TernaryExpertsNeedRowsOfWholeBlocks) {
  Ledger ledger;
  const ModelFile base = open_gguf(dense_->path(DType::kF32));
  LlamaSizes sizes = llama_sizes_of(base);
  sizes.ffn_width = 128;
  LlamaModel<float> narrow(ledger, sizes, GemmFormat::kFull);
  narrow.initialise(1);
  export_gguf(folder_.file("narrow.gguf"), "t", narrow, *dense_->tokenizer, DType::kF32);
  stand_on(folder_.file("narrow.gguf"), "count = 2\n");
  EXPECT_THAT(error_of([&] { make(ledger, "r", false); }), HasSubstr("a multiple of 256"));
}

}  // namespace
}  // namespace mneme::train
